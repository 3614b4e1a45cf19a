// Command classify shows what merging tokens saves an encoder, and what it costs:
// a MAELRE encoder tells from 2048 bytes of the King James Bible which of five
// sections they are from.
//
//	go run ./examples/classify
//	go run ./examples/classify -passage 7
//	go run ./examples/classify -n 0 -text letter.txt
//
// The same weights, trained with half of the tokens merged away in each layer, run
// over held-out passages without merging, with ratios of .10, .25 and .50, with
// local merging and with averages of neighbours. It prints a table of accuracy,
// token·layers (tokens entering a layer, summed over layers), time and memory, and
// draws it; and, below, a passage whose bytes have the colour of the token that
// they ended up in.
//
// MAELRE is a reconstruction from the paper's abstract; see package maelre. The
// model, its training and its limits are described in model/README.md: a bag of
// trigrams does as well on this task, and the result shows cost falling at equal
// accuracy here, not a gain.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/program"
)

//go:embed model/heldout.json
var heldout []byte

const (
	about = `classify shows what merging tokens saves an encoder, and what it costs: a MAELRE encoder tells
from 2048 bytes of the King James Bible which of five sections they are from.`
	usage = `	go run ./examples/classify
	go run ./examples/classify -passage 7
	go run ./examples/classify -n 0 -text letter.txt`
)

// options are the command's flags.
type options struct {
	passages, passage, workers int
	text, out                  string
}

// passage is a text of which the section is known, or -1.
type passage struct {
	Label int    `json:"label"`
	Text  string `json:"text"`
}

// data is the held-out passages.
type data struct {
	Classes  []string  `json:"classes"`
	Passages []passage `json:"passages"`
}

func readData() (d data, err error) { return d, json.Unmarshal(heldout, &d) }

func main() { program.Main("classify", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("classify", about, usage)
	f.IntVar(&o.passages, "n", 200, "how many `passages` to classify, at most 200; 0 leaves the table out")
	f.IntVar(&o.passage, "passage", 5, "draw the passage of this `number`")
	f.StringVar(&o.text, "text", "", "draw the first 2048 bytes of a `file` instead")
	f.StringVar(&o.out, "out", "classify", "write `name`.png")
	f.IntVar(&o.workers, "workers", 1, "goroutines; 0 for one for each processor")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	d, err := readData()
	if err != nil {
		return err
	}
	switch {
	case o.passages < 0 || o.passages > len(d.Passages):
		return fmt.Errorf("-n is %d, want 0 to %d", o.passages, len(d.Passages))
	case o.passage < 0 || o.passage >= len(d.Passages):
		return fmt.Errorf("-passage is %d, want 0 to %d", o.passage, len(d.Passages)-1)
	}
	drawn := d.Passages[o.passage]
	if o.text != "" {
		if drawn, err = readText(o.text); err != nil {
			return err
		}
	}
	if err := program.Writable(o.out + ".png"); err != nil {
		return err
	}
	m, err := openModel()
	if err != nil {
		return err
	}
	m.progress = program.NewProgress(stderr, "passages")
	results, err := compare(ctx, m, methods, d.Passages[:o.passages], o.workers)
	if err != nil {
		return err
	}
	if o.passages > 0 {
		fmt.Fprintf(stdout, "%d passages of %d bytes, %d sections, kernels for %s\n\n", o.passages, passageBytes, len(d.Classes), asm.Active())
		table(stdout, results)
	}
	g, err := m.groups(ctx, drawn.Text, o.workers)
	if err != nil {
		return err
	}
	g.print(stdout, d.Classes, drawn.Label)
	if err := draw(o.out+".png", results, g, g.verdict(d.Classes, drawn.Label)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nwrote %s.png\n", o.out)
	return err
}

// passageBytes is how many bytes the model was trained with.
const passageBytes = 2048

// readText reads the beginning of a file.
func readText(path string) (passage, error) {
	f, err := os.Open(path)
	if err != nil {
		return passage{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, passageBytes))
	if err == nil && len(text) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return passage{Label: -1, Text: string(text)}, err
}
