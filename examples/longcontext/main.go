// Command longcontext shows what Core-Context-Aware attention (CCA) saves and what
// it loses as sequences grow, so that one can see when it is a good choice.
//
//	go run ./examples/longcontext
//	go run ./examples/longcontext -to 1048576 -heads 8 -exact 65536
//
// It attends causally over sequences of more and more tokens: exactly, as far as
// patience goes; with CCA as published; with CCA whose cores count as many times
// as they have tokens; with a hierarchy of such cores; with CCA that is told which
// groups to see as they are, those of the needles; with policies of package kvcache: a
// window, the tokens that half a window of queries vote for (TokenSelect), the columns
// and diagonals that the last queries look at (MInference); and with package sparse:
// blocks that blocks of queries choose by their means (MInference's block-sparse heads),
// and blocks that each query chooses (MoBA). It prints the seconds each takes and its
// error against exact attention on sampled queries, for two
// kinds of sequences:
//
//   - smooth: keys and values drift slowly, so that neighbours are alike;
//   - needles: noise, and a few tokens that the queries ask for by their keys.
//
// There is no trained model here. A model trained with CCA learns to put into
// cores what it will need; what is shown is what the method does to a model that
// knows nothing of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/examples/internal/program"
)

const (
	about = `longcontext shows what Core-Context-Aware attention saves and what it loses as sequences grow:
the seconds it takes and its error, beside exact attention.`
	usage = `	go run ./examples/longcontext
	go run ./examples/longcontext -to 1048576 -heads 8 -exact 65536`
)

// options are the command's flags.
type options struct {
	from, to, exact     int
	heads, dim          int
	group, window, rows int
	out                 string
	workers             int
	progress            *program.Progress // nil for none
}

func main() { program.Main("longcontext", command) }

// most bounds the tokens, so that sizes fit in memory that people have.
const most = 1 << 20

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("longcontext", about, usage)
	f.IntVar(&o.from, "from", 1024, "`tokens` of the shortest sequence; each next has four times as many")
	f.IntVar(&o.to, "to", 65536, "`tokens` of the longest sequence, at most 1048576")
	f.IntVar(&o.exact, "exact", 16384, "attend exactly up to this many `tokens`")
	f.IntVar(&o.heads, "heads", 1, "attention heads")
	f.IntVar(&o.dim, "dim", 64, "width of a head")
	f.IntVar(&o.group, "group", 16, "`tokens` of a group")
	f.IntVar(&o.window, "window", 1024, "`tokens` that a query sees as they are")
	f.IntVar(&o.rows, "rows", 32, "`queries` sampled for the error")
	f.StringVar(&o.out, "out", "longcontext", "write `name`.png")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	switch {
	case o.from < 1 || o.from > o.to || o.to > most:
		return fmt.Errorf("-from %d and -to %d, want 1 <= from <= to <= %d", o.from, o.to, most)
	case o.heads < 1 || o.dim < 1 || o.group < 1 || o.window < 1 || o.rows < 1:
		return errors.New("-heads, -dim, -group, -window and -rows must be 1 or more")
	}
	if err := program.Writable(o.out + ".png"); err != nil {
		return err
	}
	o.progress = program.NewProgress(stderr, "")
	defer o.progress.End()
	fmt.Fprintf(stdout, "%d heads of %d, groups of %d, window of %d, kernels for %s\n", o.heads, o.dim, o.group, o.window, asm.Active())
	fmt.Fprintf(stdout, "error: |out - exact| / |exact| on sampled queries, mean; seen: exact attention's weight in the window\n\n")
	fmt.Fprintf(stdout, "%9s  %-24s %9s", "tokens", "", "seconds")
	for _, kind := range kinds {
		fmt.Fprintf(stdout, " %16s %6s", kind.name+" error", "seen")
	}
	fmt.Fprintln(stdout)
	var results []*result
	for n := o.from; n <= o.to; n *= 4 {
		list, err := compare(ctx, o, n)
		if err != nil {
			return err
		}
		for _, r := range list {
			fmt.Fprintln(stdout, r)
		}
		results = append(results, list...)
	}
	if err := draw(o.out+".png", results); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "\nwrote %s.png\n", o.out)
	return err
}

// result is one method on sequences of one length.
type result struct {
	method  string
	tokens  int
	seconds float64 // of the fastest run
	// reports are nil for kinds of sequences that were not tried.
	reports []*attention.Report
}

func (r *result) String() string {
	s := fmt.Sprintf("%9d  %-24s %9.3f", r.tokens, r.method, r.seconds)
	for _, x := range r.reports {
		switch {
		case x == nil:
			s += fmt.Sprintf(" %16s %6s", "-", "-")
		default:
			s += fmt.Sprintf(" %16.2g %4.0f %%", x.Mean, 100*x.Mass)
		}
	}
	return s
}
