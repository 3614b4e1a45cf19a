package kvcache

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Sentences chooses whole sentences of a text by what the question after it looks at
// (InfiniRetri; Ye et al. 2025, arXiv 2502.12962). The text goes through the model in
// pieces, each being the sentences that were kept, the next piece of the text, and the
// question; of the last layer's attention, summed over heads (AttentionRows), the question
// chooses what is kept. No keys are kept between pieces.
type Sentences struct {
	// Tokens is how many tokens are chosen; 0 stands for 300.
	Tokens int
	// Phrase is how many neighbours attention is summed over; 0 stands for 8.
	Phrase int
}

// AttentionRows returns the causal attention [rows, tokens] of rows queries, after which
// skip tokens follow, summed over heads: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim] as the last layer has them, rotated. Errors match ErrShape.
func AttentionRows(q, k blas32.General, heads, kvHeads int, scale float32, rows, skip int) (blas32.General, error) {
	if heads < 1 || kvHeads < 1 || heads%kvHeads != 0 || q.Cols%heads != 0 || q.Cols == 0 && q.Rows != 0 { // rows without columns may be any number
		return blas32.General{}, check.Errorf(ErrShape, "kvcache: %d heads and %d key heads of q with %d columns", heads, kvHeads, q.Cols)
	}
	d := q.Cols / heads
	if err := check.Matrix(ErrShape, "kvcache", "q", q, -1, heads*d, "Heads*HeadDim"); err != nil {
		return blas32.General{}, err
	}
	if err := check.Matrix(ErrShape, "kvcache", "k", k, q.Rows, kvHeads*d, "KVHeads*HeadDim"); err != nil {
		return blas32.General{}, err
	}
	if rows < 0 || skip < 0 || rows > q.Rows || skip > q.Rows-rows {
		return blas32.General{}, check.Errorf(ErrShape, "kvcache: %d rows and %d after them of q with %d", rows, skip, q.Rows)
	}
	a, end := mat.New(rows, q.Rows), q.Rows-skip
	for h := range heads {
		from := mat.Rows(mat.Columns(q, h*d, d), end-rows, end)
		p := causalWeights(from, mat.Rows(mat.Columns(k, h/(heads/kvHeads)*d, d), 0, end), scale)
		for i := range rows {
			to := mat.Row(a, i)[:end]
			asm.Add(to, to, mat.Row(p, i))
		}
	}
	return a, nil
}

// QuestionWeights returns how much each of the question's tokens looks at the question:
// the sums of the rows of a over the question's columns. The first piece's serve all. Errors
// match ErrShape.
func QuestionWeights(a blas32.General, question Run) ([]float32, error) {
	if err := checkColumns("question", a, question); err != nil {
		return nil, err
	}
	list := make([]float32, a.Rows)
	for i := range list {
		list[i] = asm.Sum(mat.Row(a, i)[question.From:question.To])
	}
	return list, nil
}

func checkColumns(name string, a blas32.General, x Run) error {
	if err := check.Matrix(ErrShape, "kvcache", "a", a, -1, a.Cols, "tokens"); err != nil {
		return err
	}
	if a.Cols == 0 && a.Rows > 0 {
		return check.Errorf(ErrShape, "kvcache: a has no columns, want one for each token")
	}
	if x.From < 0 || x.To < x.From || x.To > a.Cols {
		return check.Errorf(ErrShape, "kvcache: %s is %d to %d, want columns of a with %d", name, x.From, x.To, a.Cols)
	}
	return nil
}

// Score returns a score for each token of the context, from the attention a [question,
// tokens] and the question's weights w:
//
//	score[j] = sum over i of w[i]^2 (sum over the Phrase neighbours j' of j of a[i][j'])
//
// Errors match ErrShape.
func (p Sentences) Score(a blas32.General, context Run, w []float32) ([]float32, error) {
	if err := checkColumns("context", a, context); err != nil {
		return nil, err
	}
	if err := check.Vector(ErrShape, "kvcache", "w", w, a.Rows, "rows of a"); err != nil {
		return nil, err
	}
	phrase := p.Phrase
	if phrase <= 0 {
		phrase = 8
	}
	scores := make([]float32, context.To-context.From)
	for i, weight := range w {
		x := mat.Row(a, i)[context.From:context.To]
		for j := range scores {
			from, to := max(0, j-phrase/2), min(len(x), j+(phrase-1)/2+1)
			scores[j] += weight * weight * asm.Sum(x[from:to])
		}
	}
	return scores, nil
}

// Choose returns the tokens with the highest scores, ascending, and the sentences that
// hold one: sentence i is bounds[i] (included) to bounds[i+1] (excluded). Tokens are
// numbered like columns of a, the context's first being first.
func (p Sentences) Choose(scores []float32, first int, bounds []int) (tokens, sentences []int) {
	n := p.Tokens
	if n <= 0 {
		n = 300
	}
	for _, j := range best(nil, scores, n) {
		tokens = append(tokens, first+int(j))
	}
	for i := 0; i+1 < len(bounds); i++ {
		if at, _ := slices.BinarySearch(tokens, bounds[i]); at < len(tokens) && tokens[at] < bounds[i+1] {
			sentences = append(sentences, i)
		}
	}
	return tokens, sentences
}
