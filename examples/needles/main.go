// Command needles shows what policies for long pasts find again, and what it costs.
//
//	go run ./examples/needles
//	go run ./examples/needles -to 32768 -sequences 4 -policies plain,yarn,tokenselect,infllm
//	go run ./examples/needles -text 1048576 -heads 1 -to 0
//	go run ./examples/needles -tokens 1048576 -tasks threads,sinks
//
// First a small Llama, built in, that has learned to recall four marked pairs of a key and
// a value among noise, in sequences of up to 512 tokens. It is asked the same of longer
// ones: as it is, with scaled rotary positions, and with policies that bring positions
// back to what it has seen (TokenSelect, InfLLM, StreamingLLM, SirLLM), or choose what is
// read, or forget. Selection does not mend positions: at their own positions Quest and
// the best tokens are as good as the rope they are given.
//
// Then keys without a model: needles in normal noise, each leading to the next, asked for
// so that exact attention gives them nine tenths of the weight. It prints which needles
// and threads each policy finds, how far its outputs are off, where it can tell what share
// of the weight it saw and how much it missed at the most, the bytes that it reads and the
// times that a question and a token of the text take, beside reading everything. -tasks
// plants one needle (single), needles in order (forward, backward), keys that are like the
// needles' (multikey), first tokens that draw half of the weight (sinks), or no needles
// (diffuse). One policy holds the text after the other: a million tokens take 4 GB.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/subquad/subquad/examples/internal/program"
)

//go:embed model/model.safetensors
var checkpoint []byte

//go:embed model/config.json
var config []byte

const (
	about = `needles shows what policies for long pasts find again, and what it costs.`
	usage = `	go run ./examples/needles
	go run ./examples/needles -to 32768 -sequences 4 -policies plain,yarn,tokenselect,infllm
	go run ./examples/needles -text 1048576 -heads 1 -to 0
	go run ./examples/needles -tokens 1048576 -tasks threads,sinks`
)

// options are the command's flags.
type options struct {
	to, sequences, text, tokens, budget, heads, workers int
	topic                                               float64
	seed                                                uint64
	out, names, tasks                                   string
	progress                                            *program.Progress // nil for none
}

// most bounds the tokens, so that the command ends while one looks on.
const most = 1 << 20

func main() { program.Main("needles", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("needles", about, usage)
	f.IntVar(&o.to, "to", 4096, "`tokens` of the model's longest sequences; they begin at 256 and double; 0 for none")
	f.IntVar(&o.sequences, "sequences", 4, "sequences of each length, of four questions each")
	f.StringVar(&o.names, "policies", "", "`names` of the model's policies, with commas between them (default: most)")
	f.IntVar(&o.text, "text", 65536, "`tokens` of the longest text without a model; they begin at 4,096 and grow by 4; 0 for none")
	f.IntVar(&o.tokens, "tokens", 0, "`tokens` of the only text without a model, 4,096 or more, and no model; 0 for what -to and -text say")
	f.StringVar(&o.tasks, "tasks", "", "what is asked of texts without a model: `names` of threads, single, forward, backward, multikey, sinks, diffuse, or all (default: threads, and of the shortest text multikey, sinks and diffuse)")
	f.IntVar(&o.budget, "budget", textBudget, "`tokens` that policies read, or keep, of a text without a model")
	f.IntVar(&o.heads, "heads", 4, "query `heads` of 4 that ask")
	f.Float64Var(&o.topic, "topic", 0.7, "`share` that keys have in common with their neighbours, 0 to 1")
	f.Uint64Var(&o.seed, "seed", 1, "of the random numbers")
	f.StringVar(&o.out, "out", "needles", "write `name`.png")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	chosen, err := choose(o.names)
	asked, wrong := chooseTasks(o.tasks)
	switch {
	case err != nil:
		return err
	case wrong != nil:
		return wrong
	case o.tokens != 0 && (o.tokens < 4096 || o.tokens > most):
		return fmt.Errorf("-tokens is %d, want 0, or 4096 to %d", o.tokens, most)
	case o.to != 0 && (o.to < 256 || o.to > most), o.text != 0 && (o.text < 4096 || o.text > most):
		return fmt.Errorf("-to is %d and -text %d, want 0, or 256 and 4096 to %d", o.to, o.text, most)
	case o.to == 0 && o.text == 0 && o.tokens == 0:
		return errors.New("-to, -text and -tokens are 0: nothing is left to ask")
	case o.budget < 512 || o.budget > 1<<16:
		return fmt.Errorf("-budget is %d, want 512 to 65536", o.budget)
	case o.sequences < 1:
		return errors.New("-sequences must be 1 or more")
	case o.heads < 1 || o.heads > textHeads || !(o.topic >= 0 && o.topic < 1):
		return fmt.Errorf("-heads is %d and -topic %v, want 1 to %d, and 0 to less than 1", o.heads, o.topic, textHeads)
	case o.workers < 0:
		return fmt.Errorf("-workers is %d, want 0 or more", o.workers)
	}
	if err := program.Writable(o.out + ".png"); err != nil {
		return err
	}
	o.progress = program.NewProgress(stderr, "sequences")
	defer o.progress.End()
	var charts [2]chart
	if o.to > 0 && o.tokens == 0 {
		if err := recall(ctx, &o, chosen, &charts[0], stdout); err != nil {
			return err
		}
	}
	for i, n := range o.lengths() {
		list := asked
		if o.tasks == "" && i > 0 || o.tasks == "" && o.tokens > 0 {
			list = tasks[:1]
		}
		for _, x := range list {
			results, err := readText(ctx, &o, x, n, stdout)
			if err != nil {
				return err
			}
			if x.name != tasks[0].name {
				continue
			}
			for name, f := range results {
				charts[1].add(name, n, f.recall)
			}
		}
	}
	if err := draw(o.out+".png", charts[:]); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nwrote %s.png\n", o.out)
	return err
}

// lengths are those of texts without a model.
func (o *options) lengths() (list []int) {
	if o.tokens > 0 {
		return []int{o.tokens}
	}
	for n := 4096; n <= o.text; n *= 4 {
		list = append(list, n)
	}
	return list
}

// chooseTasks returns the tasks of some names.
func chooseTasks(names string) (list []task, err error) {
	switch names {
	case "":
		names = "threads,multikey,sinks,diffuse"
	case "all":
		return tasks, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(tasks, func(x task) bool { return x.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("-tasks has %q, want some of threads, single, forward, backward, multikey, sinks, diffuse, or all", name)
		}
		list = append(list, tasks[i])
	}
	return list, nil
}

// choose returns the policies of some names, or those that need not be asked for.
func choose(names string) ([]policy, error) {
	var list []policy
	if names == "" {
		for _, p := range policies {
			if !p.asked {
				list = append(list, p)
			}
		}
		return list, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(policies, func(p policy) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			var known []string
			for _, p := range policies {
				known = append(known, p.name)
			}
			return nil, fmt.Errorf("-policies has %q, want some of %s", name, strings.Join(known, ", "))
		}
		list = append(list, policies[i])
	}
	return list, nil
}

// recall asks the model, with each policy, at each length.
func recall(ctx context.Context, o *options, chosen []policy, c *chart, stdout io.Writer) error {
	var lengths []int
	for n := 256; n <= o.to; n *= 2 {
		lengths = append(lengths, n)
	}
	fmt.Fprintf(stdout, "a Llama trained to %d tokens: share of %d answers that are right\n", trained, o.sequences*pairs)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "policy\t")
	for _, n := range lengths {
		fmt.Fprintf(w, "%d\t", n)
	}
	fmt.Fprintln(w)
	o.progress.Begin("recall", len(chosen)*len(lengths)*o.sequences)
	for _, p := range chosen {
		fmt.Fprintf(w, "%s\t", p.name)
		for _, n := range lengths {
			share, err := p.recall(ctx, o, n)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			fmt.Fprintf(w, "%.2f\t", share)
			c.add(p.name, n, share)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// recall returns the share of right answers at a length.
func (p *policy) recall(ctx context.Context, o *options, tokens int) (float64, error) {
	m, err := p.open(tokens, o.workers)
	if err != nil {
		return 0, err
	}
	r := rand.New(rand.NewPCG(o.seed, uint64(tokens))) // the same sequences for all
	right := 0
	for range o.sequences {
		s := newSequence(r, tokens)
		logits, err := p.answers(ctx, m, s.tokens, nil)
		if err != nil {
			return 0, err
		}
		for i, want := range s.targets {
			row := logits.Data[i*logits.Stride:][:logits.Cols]
			best := 0
			for j, x := range row {
				if x > row[best] {
					best = j
				}
			}
			if best == int(want) {
				right++
			}
		}
		o.progress.Add(1)
	}
	return float64(right) / float64(o.sequences*pairs), nil
}
