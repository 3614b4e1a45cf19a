// Command beam runs subquad on many machines, by Apache Beam: three pipelines that put parts
// together where the mathematics allows it.
//
//	go run ./examples/beam -pipeline score -out scores genomes/*.fa.gz
//	go run ./examples/beam -pipeline attention -keys 1048576
//	go run ./examples/beam -pipeline scan -rule delta
//
// score gives the bits per base of any number of FASTA files under a HyenaDNA model. attention
// attends to one long context whose keys and values lie in shards. scan runs one long recurrence
// over shards. They run in this process, by Beam's runner Prism, or by another runner that
// Beam's own flag --runner names (flink, spark, dataflow). README.md says what to expect.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/x/beamx"
)

const about = `beam scores genomes, attends to one long context or scans one, on one machine or many.

	go run ./examples/beam -pipeline score -out scores genomes/*.fa.gz
	go run ./examples/beam -pipeline attention -keys 1048576
	go run ./examples/beam -pipeline scan -rule delta
	go run ./examples/beam -pipeline score --runner=flink --endpoint=localhost:8099 -out gs://bucket/scores 'gs://bucket/*.fa'

Flags, which come before the files:
`

// flags are this program's own; package flag has Beam's beside them.
var flags = flag.NewFlagSet("beam", flag.ContinueOnError)

var (
	pipelineName = flags.String("pipeline", "score", "`what` to run: score, attention or scan")
	outDir       = flags.String("out", "beam-out", "write results to this `folder`, which all workers must reach")
	workers      = flags.Int("workers", 0, "goroutines of a worker's model or operator (default: one for each processor)")
	check        = flags.Bool("check", true, "attention and scan: compare with one process, which takes as long as one worker\nand holds all keys; a difference beyond rounding is an error")
	pool         = flags.Int("pool", 0, "be a worker process for --environment_type=EXTERNAL at this `port`, and nothing else")
	verbose      = flags.Bool("v", false, "print what Beam reports")
)

func main() {
	flag.Usage = usage
	flags.VisitAll(func(f *flag.Flag) { flag.Var(f.Value, f.Name, f.Usage) })
	flag.Parse()
	level := "warn"
	if *verbose {
		level = "info"
	}
	log.SetupLogging(level, "text")
	beam.Init() // does not return where this process is a worker
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "beam: %v\n", err)
		os.Exit(1)
	}
}

// usage prints this program's flags, and Beam's behind them.
func usage() {
	w := flag.CommandLine.Output()
	flags.SetOutput(w)
	fmt.Fprint(w, about)
	flags.PrintDefaults()
	fmt.Fprint(w, "\nBeam's own flags:\n")
	beams := flag.NewFlagSet("", flag.ContinueOnError)
	beams.SetOutput(w)
	flag.VisitAll(func(f *flag.Flag) {
		if flags.Lookup(f.Name) == nil {
			beams.Var(f.Value, f.Name, f.Usage)
		}
	})
	beams.PrintDefaults()
}

func command(ctx context.Context, args []string, stdout io.Writer) error {
	if *pool != 0 {
		server, err := extworker.StartLoopback(ctx, *pool)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "workers at localhost:%d, until interrupted\n", *pool)
		<-ctx.Done()
		return server.Stop(context.WithoutCancel(ctx))
	}
	for _, arg := range args {
		switch {
		case arg == "":
			return errors.New("the name of a file is empty")
		case arg[0] == '-':
			return fmt.Errorf("%s comes behind a file: flags come first, and a file of this name is ./%[1]s", arg)
		case *pipelineName != "score":
			return fmt.Errorf("unexpected argument %q", arg)
		}
	}
	switch {
	case *outDir == "":
		return errors.New("-out is empty, want a folder")
	case *jobopts.Async:
		return errors.New("-async: results get their names when the job is done, which must be waited for")
	}
	switch *pipelineName {
	case "score":
		return scoreCommand(ctx, args, stdout)
	case "attention":
		return attentionCommand(ctx, stdout)
	case "scan":
		return scanCommand(ctx, stdout)
	}
	return errors.New("-pipeline is " + *pipelineName + ", want score, attention or scan")
}

// run builds a pipeline and runs it to its end, or the context's, whose error it then returns.
func run(ctx context.Context, build func(s beam.Scope)) error {
	p, s := beam.NewPipelineWithRoot()
	build(s)
	err := beamx.Run(ctx, p)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
