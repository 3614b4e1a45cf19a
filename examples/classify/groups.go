package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/merge/maelre"
)

// groups tells which bytes of a text ended up in one token.
type groups struct {
	text   string
	of     []int // group of each byte, the largest first
	sizes  []int // of the groups
	logits []float32
	stages []int // tokens left after each layer
}

// groups classifies a text by the method that the model was trained with.
func (m *model) groups(ctx context.Context, text string, workers int) (*groups, error) {
	how := methods[slices.IndexFunc(methods, func(how method) bool { return how.name == trained })]
	e, err := m.encoder(how, workers)
	if err != nil {
		return nil, err
	}
	g := &groups{text: text}
	var all merge.Plan
	if err := all.SetIdentity(len(text)); err != nil {
		return nil, err
	}
	call := maelre.Call{X: m.embed(text), Logits: vector(e.Classes()), Observe: func(s maelre.Stage) {
		if s.Plan != nil && err == nil {
			err = all.Compose(&all, s.Plan)
			g.stages = append(g.stages, s.Plan.Len())
		}
	}}
	if e := e.Run(ctx, &call); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	g.logits = call.Logits.Data
	order := make([]int, all.Len())
	for j := range order {
		order[j] = j
	}
	slices.SortStableFunc(order, func(a, b int) int { return -cmp.Compare(all.Counts()[a], all.Counts()[b]) })
	rank := make([]int, all.Len())
	for i, j := range order {
		rank[j] = i
		g.sizes = append(g.sizes, int(all.Counts()[j]))
	}
	for _, j := range all.Map() {
		g.of = append(g.of, rank[j])
	}
	return g, nil
}

// verdict says what the text is taken for, and what it is from where that is known.
func (g *groups) verdict(classes []string, label int) string {
	sum := 0.0
	for _, v := range g.logits {
		sum += math.Exp(float64(v))
	}
	best := largest(g.logits)
	s := fmt.Sprintf("taken for %s (p = %.2f)", classes[best], math.Exp(float64(g.logits[best]))/sum)
	if label >= 0 {
		s += fmt.Sprintf("; it is from %s", classes[label])
	}
	return s
}

// print prints what the text is taken for, and what the groups hold.
func (g *groups) print(w io.Writer, classes []string, label int) {
	fmt.Fprintf(w, "\nA passage of %d bytes, %q …, is %s", len(g.text), g.text[:min(40, len(g.text))], g.verdict(classes, label))
	fmt.Fprintf(w, ".\nIts tokens, layer by layer: %d", len(g.text))
	for _, n := range g.stages {
		fmt.Fprintf(w, " %d", n)
	}
	fmt.Fprint(w, ". Bytes that ended up together, with the two before them:\n\n")
	for i, size := range g.sizes {
		fmt.Fprintf(w, "%5d bytes %s\n", size, g.frequent(i, 8))
	}
}

// frequent lists the most frequent of the trigrams that end with bytes of a group.
func (g *groups) frequent(group, most int) (s string) {
	count := map[string]int{}
	for t, j := range g.of {
		if j == group {
			count[g.text[max(0, t-2):t+1]]++
		}
	}
	list := make([]string, 0, len(count))
	for trigram := range count {
		list = append(list, trigram)
	}
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(-cmp.Compare(count[a], count[b]), cmp.Compare(a, b))
	})
	for _, trigram := range list[:min(most, len(list))] {
		s += fmt.Sprintf("  %q", trigram)
		if n := count[trigram]; n > 1 {
			s += fmt.Sprintf(" %d", n)
		}
	}
	return s
}
