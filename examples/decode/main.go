// Command decode shows what a key/value cache costs: how fast one more token is, and
// how much memory the past takes, as the context grows, for each way to keep it.
//
//	go run ./examples/decode
//	go run ./examples/decode -heads 32 -kv 8 -dim 128 -context 32768
//
// It prints a table and writes a picture: storage types, a ring, and policies of package
// kvcache, which read a part of the past or hold one. Keys and values are noise: neither
// time nor memory depends on what they are. The last column tells what that does to the
// output of one token, beside reading all in float32: noise spreads the weight over all
// tokens, which is the worst for what reads few (examples/needles has the other end).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/program"
)

const (
	about = `decode shows what a key/value cache costs: how fast one more token is, and how much memory the
past takes, as the context grows, for each way to keep it.`
	usage = `	go run ./examples/decode
	go run ./examples/decode -heads 32 -kv 8 -dim 128 -context 32768`
)

// options are the command's flags.
type options struct {
	heads, kv, dim, context, window, workers int
	out                                      string
	progress                                 *program.Progress // nil for none
}

func main() { program.Main("decode", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("decode", about, usage)
	f.IntVar(&o.heads, "heads", 8, "query `heads`")
	f.IntVar(&o.kv, "kv", 2, "key and value `heads`")
	f.IntVar(&o.dim, "dim", 64, "`width` of a head")
	f.IntVar(&o.context, "context", 128<<10, "the longest context, in `tokens`")
	f.IntVar(&o.window, "window", 4096, "`tokens` that the ring holds, besides the first four")
	f.StringVar(&o.out, "out", "decode", "write `name`.png")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	switch {
	case o.context < 2 || o.context > 1<<22: // of one alone there is no axis
		return errors.New("-context must be 2 to 4194304")
	case o.window < 1:
		return errors.New("-window must be 1 or more")
	}
	if err := program.Writable(o.out + ".png"); err != nil {
		return err
	}
	o.progress = program.NewProgress(stderr, "tokens")
	defer o.progress.End()
	results, err := measure(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d heads of %d over %d of keys, kernels for %s\n\n", o.heads, o.dim, o.kv, asm.Active())
	fmt.Fprintf(stdout, "%-22s %9s %11s %10s %9s %12s\n", "", "tokens", "tokens/s", "memory", "GB/s", "error")
	for _, r := range results {
		for _, p := range r.points {
			fmt.Fprintf(stdout, "%-22s %9d %11.0f %7.1f MB %9.1f %12.1e\n", r.name, p.tokens, p.rate(), float64(p.bytes)/1e6, p.rate()*float64(p.read)/1e9, p.err)
		}
	}
	if err := draw(o.out+".png", results); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nwrote %s.png\n", o.out)
	return err
}
