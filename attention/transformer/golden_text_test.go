package transformer

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenText runs a trained model of llama2.c, from its own file and from Hugging Face's:
// texts, tokens and likelihoods.
func goldenText(t *testing.T, f *golden.File) {
	folder := f.Beside("checkpoint")
	files, err := filepath.Glob(filepath.Join(folder, "*.bin"))
	must(t, err)
	paths, vocabulary := []string{folder}, ""
	for _, path := range files {
		if strings.HasPrefix(filepath.Base(path), "tok") {
			vocabulary = path
		} else {
			paths = append(paths, path)
		}
	}
	words, err := OpenTokenizer(vocabulary)
	must(t, err)
	margin := f.Margin("greedy_margin")
	for _, path := range paths {
		m, err := Open(path, Config{})
		must(t, err)
		if words.Size() != m.shape.Vocab {
			t.Errorf("%d tokens, the model has %d", words.Size(), m.shape.Vocab)
		}
		for _, name := range f.Names() {
			kind, c, _ := strings.Cut(name, ".")
			switch kind {
			case "encode":
				got, err := words.Encode(f.Meta(name), true)
				must(t, err)
				f.CompareInts(name, wide(got))
				if back := words.Decode(got); back != f.Meta(name) {
					t.Errorf("%s: %q becomes %q", name, f.Meta(name), back)
				}
			case "prompt":
				if testing.Short() && path != paths[0] {
					continue // the same weights, whose logits are compared below
				}
				goldenStory(t, f, m, words, c, margin)
			case "ids":
				tokens := ids(f, name)
				n := len(tokens)
				logits, logp := zeros(n, m.shape.Vocab), make([]float32, n-1)
				must(t, m.Run(t.Context(), &Call{Tokens: tokens, Logits: logits, LogLikelihood: logp}))
				for what, got := range map[string][]float32{"logits": logits.Data, "last": logits.Data[(n-1)*m.shape.Vocab:], "loglik": logp} {
					if f.Has(what + "." + c) {
						f.Compare(what+"."+c, got)
					}
				}
				if text := f.Meta("ids_" + c); text != "" {
					got, err := words.Encode(text, true)
					must(t, err)
					f.CompareInts(name, wide(got))
					var bits float64
					for _, v := range logp {
						bits -= float64(v) / math.Ln2
					}
					for key, count := range map[string]int{"bits_per_token": n - 1, "bits_per_byte": len(text)} {
						want := f.Number(key, -1)
						if got := bits / float64(count); want >= 0 && math.Abs(got-want) > 1e-4 {
							t.Errorf("%s is %v, want %v", key, got, want)
						}
					}
				}
			}
		}
	}
}

func wide(list []int32) []int64 {
	out := make([]int64, len(list))
	for i, v := range list {
		out[i] = int64(v)
	}
	return out
}

// goldenStory continues a prompt greedily.
func goldenStory(t *testing.T, f *golden.File, m *Model, words *Tokenizer, c string, margin float64) {
	prompt, err := words.Encode(f.Meta("prompt."+c), true)
	must(t, err)
	f.CompareInts("prompt."+c, wide(prompt))
	n := f.Shape("greedy." + c)[0]
	all := append([]int32(nil), prompt...)
	var got []int64
	for token, err := range m.Generate(t.Context(), prompt, newState(t, m, StateConfig{}), GenerateConfig{MaxTokens: n}) {
		must(t, err)
		all, got = append(all, token), append(got, int64(token))
	}
	if want := f.Int64("greedy." + c); len(got) == n-1 && (want[n-1] == 1 || want[n-1] == 2) {
		got = append(got, want[n-1]) // the token that ends the text is not yielded
		all = append(all, int32(want[n-1]))
	}
	f.CompareInts("greedy."+c, got)
	logp, logits := make([]float32, len(all)-1), zeros(len(all), m.shape.Vocab)
	must(t, m.Run(t.Context(), &Call{Tokens: all, LogLikelihood: logp, Logits: logits}))
	decided(t, mat.Rows(logits, len(prompt)-1, len(all)-1), all[len(prompt):], margin)
	f.Compare("greedy_logprob."+c, logp[len(prompt)-1:])
	if text := words.Decode(all); text != f.Meta("text."+c) {
		t.Errorf("text %s is %q, want %q", c, text, f.Meta("text."+c))
	}
}
