package main

import (
	"bufio"
	"context"
	"io"
	"slices"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/text"
)

// keptBytes is the memory for what is known of a conversation so far.
const keptBytes = 1 << 30

// longestLine is what a message may have, in bytes.
const longestLine = 1 << 24

// converse answers the prompt, or each line of the standard input.
func converse(ctx context.Context, m *language.Model, o options, stdout, stderr io.Writer) error {
	template, err := m.Template(o.template)
	if err != nil {
		return err
	}
	if !o.endless {
		o.generate.Stop = slices.Concat(o.generate.Stop, template.Ends())
	}
	known, err := m.NewLongPrefixes(keptBytes, o.long)
	if err != nil {
		return err
	}
	var talk []text.Message
	if o.system != "" {
		talk = append(talk, text.Message{Role: text.System, Content: o.system})
	}
	w := &writing{model: m, options: &o, stdout: stdout, stderr: stderr}
	answer := func(message string) error {
		talk = append(talk, text.Message{Role: text.User, Content: message})
		said, err := reply(ctx, w, template, known, talk)
		talk = append(talk, text.Message{Role: text.Assistant, Content: said})
		return err
	}
	if o.prompt != "" {
		if err := answer(o.prompt); err != nil {
			return err
		}
		return w.report()
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		if err := answer(lines.Text()); err != nil {
			return err
		}
		if _, err := io.WriteString(stdout, "\n\n"); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return w.report()
}

// reply continues a conversation. What is known of its beginning is not computed again, and
// what the state has seen in the end is known from then on.
func reply(ctx context.Context, w *writing, template *text.Template, known *transformer.Prefixes, talk []text.Message) (string, error) {
	tokens, err := template.Apply(talk, true)
	if err != nil {
		return "", err
	}
	last := len(tokens) - 1 // is run for the first token of the answer
	st, _, err := language.Prefill(ctx, known, tokens)
	if err != nil {
		return "", err
	}
	w.options.generate.Seen = tokens[:last]
	said, err := w.write(ctx, tokens[last:], st)
	if err != nil {
		return "", err
	}
	return said, known.Insert(append(tokens, w.generated...)[:st.Len()], st)
}
