// Command recall shows a Mamba forgetting beyond the length of its training, and
// LongMamba, which needs no training, bringing it back.
//
//	go run ./examples/recall
//	go run ./examples/recall -sequences 200 -to 16384
//	go run ./examples/recall -clamp 0 -scale 0.5
//
// A small Mamba-2, built in, has learned to recall four pairs of a key and a value
// among noise, in sequences of 128 tokens. It is asked the same of longer ones: as it
// is; with all steps of its global heads scaled down by a delta ratio; with DeciMamba,
// which drops whole tokens; and with LongMamba, whose tables are made first, of a few
// sequences of 128 tokens, in milliseconds.
//
// It prints what part of the pairs is recalled, and draws it. Then a harder task, that
// the model was not trained for: a fifth of the noise are keys and values that nothing
// marks as a pair. There LongMamba hardly helps, and what its heads keep tells why: a
// step dt depends on the token and hardly on what is before it, so that a head that
// keeps the values of pairs keeps all values.
//
// At last it compares what states of one size recall without any training: keys that are
// written again and again with other values. A sum of all writings, as linear attention
// has, mixes old values and new ones; a delta rule, which erases what it has under a key
// before it writes, recalls all of as many orthogonal keys as its state has channels.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/ssm/longmamba"
	"github.com/subquad/subquad/ssm/mamba"
)

//go:embed model/model.safetensors
var weights []byte

//go:embed model/config.json
var config []byte

const (
	about = `recall shows a Mamba forgetting beyond the length of its training, and LongMamba, which needs no
training, bringing it back.`
	usage = `	go run ./examples/recall
	go run ./examples/recall -sequences 200 -to 16384
	go run ./examples/recall -clamp 0 -scale 0.5`
)

// options are the command's flags.
type options struct {
	to, sequences, calibration, workers int
	clamp, threshold, scale             float64
	seed                                uint64
	out                                 string
	progress                            *program.Progress // nil for none
}

const (
	// most bounds the tokens, so that the command ends while one looks on.
	most = 1 << 20
	// hardest is where the harder task ends: nothing is recalled from there on.
	hardest = 2048
)

func main() { program.Main("recall", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("recall", about, usage)
	f.IntVar(&o.to, "to", 8192, "`tokens` of the longest sequences; they begin at 128 and double")
	f.IntVar(&o.sequences, "sequences", 50, "sequences of each length, of four questions each")
	f.IntVar(&o.calibration, "calibration", 20, "sequences of 128 tokens to calibrate with")
	f.Float64Var(&o.clamp, "clamp", 0.12, "`fraction` of the largest steps that calibration cuts down; 0 for none")
	f.Float64Var(&o.threshold, "threshold", 0.05, "`fraction` of a state that must remain after 128 tokens for a head to be global")
	f.Float64Var(&o.scale, "scale", 1, "`factor` of the tables' thresholds")
	f.Uint64Var(&o.seed, "seed", 1, "of the random numbers")
	f.StringVar(&o.out, "out", "recall", "write `name`.png and name-delta.png")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	switch {
	case o.to < trainLength || o.to > most:
		return fmt.Errorf("-to is %d, want %d to %d", o.to, trainLength, most)
	case o.sequences < 1 || o.calibration < 1:
		return errors.New("-sequences and -calibration must be 1 or more")
	case o.workers < 0:
		return fmt.Errorf("-workers is %d, want 0 or more", o.workers)
	}
	for _, name := range []string{o.out + ".png", o.out + "-delta.png"} {
		if err := program.Writable(name); err != nil {
			return err
		}
	}
	o.progress = program.NewProgress(stderr, "sequences")
	defer o.progress.End()
	model, err := openModel()
	if err != nil {
		return err
	}
	table, err := calibrate(ctx, o, model, stdout)
	if err != nil {
		return err
	}
	methods, err := newMethods(o, table)
	if err != nil {
		return err
	}
	var charts []chart
	for _, task := range []struct {
		title string
		to    int
		hard  bool
	}{{"recall of 4 pairs among noise", o.to, false}, {"harder: of the noise a fifth are unmarked keys and values", min(o.to, hardest), true}} {
		list, err := compare(ctx, o, model, methods, task.title, task.to, task.hard, stdout)
		if err != nil {
			return err
		}
		charts = append(charts, chart{task.title, list})
	}
	if err := diagnose(ctx, o, model, methods[len(methods)-1].filter, stdout); err != nil {
		return err
	}
	if err := draw(o.out+".png", charts); err != nil {
		return err
	}
	states, err := capacity(ctx, o, stdout)
	if err != nil {
		return err
	}
	if err := drawCapacity(o.out+"-delta.png", states); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nwrote %s.png and %s-delta.png\n", o.out, o.out)
	return err
}

func openModel() (*mamba.Model, error) {
	cfg, err := mamba.ParseConfig(config)
	if err != nil {
		return nil, err
	}
	return mamba.Read(bytes.NewReader(weights), int64(len(weights)), cfg)
}

// calibrate makes LongMamba's tables of sequences of the training's length.
func calibrate(ctx context.Context, o options, model *mamba.Model, stdout io.Writer) (*longmamba.Calibration, error) {
	var sequences [][]int32
	for i := range o.calibration {
		sequences = append(sequences, newSequence(rand.New(rand.NewPCG(o.seed, uint64(i))), trainLength, false).tokens)
	}
	begin := time.Now()
	table, err := model.Calibrate(ctx, sequences, longmamba.CalibrationConfig{Clamp: o.clamp})
	if err != nil {
		return nil, err
	}
	took := time.Since(begin)
	bytes, err := table.WriteTo(io.Discard)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(stdout, "a Mamba-2 trained at %d tokens, kernels for %s\n", trainLength, asm.Active())
	fmt.Fprintf(stdout, "calibrated in %v on %d sequences: a table of %d lengths, %.1f kB\n", took.Round(time.Millisecond/10), len(sequences), len(table.Lengths), float64(bytes)/1e3)
	for layer := range table.Tables {
		fields, err := table.ReceptiveFields(layer, o.threshold)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(stdout, "layer %d: receptive fields of the heads, in tokens:", layer)
		for _, field := range fields {
			fmt.Fprintf(stdout, " %.0f", field)
		}
		fmt.Fprintln(stdout)
	}
	return table, nil
}

// compare prints the recall of all methods against the length.
func compare(ctx context.Context, o options, model *mamba.Model, methods []method, title string, to int, hard bool, stdout io.Writer) ([]*result, error) {
	fmt.Fprintf(stdout, "\n%s, %d sequences of each length\n%9s", title, o.sequences, "tokens")
	for _, m := range methods {
		fmt.Fprintf(stdout, " %12s", m.name)
	}
	fmt.Fprintln(stdout)
	var list []*result
	for n := trainLength; n <= to; n *= 2 {
		r, err := measure(ctx, o, model, methods, n, hard)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(stdout, "%9d", n)
		for _, v := range r.recall {
			fmt.Fprintf(stdout, " %12.3f", v)
		}
		fmt.Fprintln(stdout)
		list = append(list, r)
	}
	return list, nil
}
