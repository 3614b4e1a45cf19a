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
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/x/beamx"
)

const about = `beam scores genomes, attends to one long context or scans one, on one machine or many.

	go run ./examples/beam -pipeline score -out scores genomes/*.fa.gz
	go run ./examples/beam -pipeline attention -keys 1048576
	go run ./examples/beam -pipeline scan -rule delta
	go run ./examples/beam -pipeline score --runner=flink --endpoint=localhost:8099 -out gs://bucket/scores 'gs://bucket/*.fa'

Flags; those that README.md does not name are Beam's:
`

var (
	pipelineName = flag.String("pipeline", "score", "`what` to run: score, attention or scan")
	outDir       = flag.String("out", "beam-out", "write results to this `folder`, which all workers must reach")
	workers      = flag.Int("workers", 0, "goroutines of a worker's model or operator (default: one for each processor)")
	check        = flag.Bool("check", true, "attention and scan: compare with one process, which takes as long as one worker")
	pool         = flag.Int("pool", 0, "be a worker process for --environment_type=EXTERNAL at this `port`, and nothing else")
	verbose      = flag.Bool("v", false, "print what Beam reports")
)

func main() {
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), about); flag.PrintDefaults() }
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

func command(ctx context.Context, args []string, stdout io.Writer) error {
	if *pool != 0 {
		server, err := extworker.StartLoopback(ctx, *pool)
		if err != nil {
			return err
		}
		<-ctx.Done()
		return server.Stop(context.WithoutCancel(ctx))
	}
	if len(args) > 0 && *pipelineName != "score" {
		return fmt.Errorf("unexpected argument %q", args[0])
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

// run builds a pipeline and runs it to its end.
func run(ctx context.Context, build func(s beam.Scope)) error {
	p, s := beam.NewPipelineWithRoot()
	build(s)
	return beamx.Run(ctx, p)
}
