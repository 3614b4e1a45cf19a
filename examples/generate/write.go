package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/program"
)

// writing prints text as it is generated, and counts.
type writing struct {
	model          *language.Model
	options        *options
	stdout, stderr io.Writer
	shown          string // printed before the first token, once nothing is wrong with it

	prompt, tokens int
	drafted        int           // of tokens
	first, others  time.Duration // until the first token, and from there on
	state          int64         // bytes, -1 for none
	generated      []int32       // by the last write
	ended          transformer.End
}

// write continues a prompt after what a state has seen; without one it makes one. It returns
// the text.
func (w *writing) write(ctx context.Context, prompt []int32, st *transformer.State) (string, error) {
	if st == nil {
		var err error
		if st, err = w.model.NewLongState(w.options.long); err != nil && !errors.Is(err, language.ErrNoState) {
			return "", err
		}
	}
	w.generated = w.generated[:0]
	begin, first := time.Now(), time.Time{}
	var text []byte
	for p, err := range w.model.Stream(ctx, prompt, st, w.options.generate) {
		if err != nil {
			return "", err
		}
		if first.IsZero() {
			first = time.Now()
			if _, err := io.WriteString(w.stdout, w.shown); err != nil {
				return "", err
			}
		}
		text = append(text, p.Text...)
		if _, err := w.stdout.Write(p.Text); err != nil {
			return "", err
		}
		if w.ended = p.End; p.End != transformer.Going {
			continue
		}
		if w.tokens++; p.Drafted {
			w.drafted++
		}
		w.generated = append(w.generated, p.Token)
		if w.options.counts {
			fmt.Fprintf(w.stderr, "%8.3f %d %q\n", p.LogProb, p.Token, w.model.Words.AppendText(nil, 0, p.Token))
		}
	}
	w.prompt += len(prompt)
	w.first += first.Sub(begin)
	w.others += time.Since(first)
	if w.state = -1; st != nil {
		w.state = int64(st.Bytes())
	}
	return string(text), nil
}

// report tells how fast it was, and what memory it took.
func (w *writing) report() error {
	end := ""
	switch w.ended {
	case transformer.AtToken:
		end = fmt.Sprintf("the text ended after %d tokens (-endless goes on)\n", w.tokens)
	case transformer.AtText:
		end = fmt.Sprintf("a text of -stop came after %d tokens\n", w.tokens)
	}
	if w.options.draft != "" {
		end += fmt.Sprintf("%d tokens in %d calls: %d had been drafted\n", w.tokens, w.tokens-w.drafted, w.drafted)
	}
	state := ""
	if w.state >= 0 {
		state = "; state: " + program.Size(w.state)
	}
	if w.model.Room == "mamba" || w.model.Room == "rwkv" {
		state += ", whatever the length"
	}
	_, err := fmt.Fprintf(w.stderr, "\n\n%sprompt: %d tokens in %v; then %.0f tokens/s\nweights: %s as %s%s\n",
		end, w.prompt, w.first.Round(time.Microsecond), float64(max(w.tokens-1, 0))/max(w.others.Seconds(), 1e-9),
		program.Size(w.model.Bytes()), w.options.open.Format, state)
	return err
}
