package tokenizer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

func newModel(s *section) (model, error) {
	kind := s.Type
	if kind == "" { // older files do not say
		f, err := as[struct {
			Merges []any  `json:"merges"`
			Prefix string `json:"continuing_subword_prefix"`
		}](s)
		switch {
		case err != nil:
			return nil, err
		case f.Merges != nil:
			kind = "BPE"
		case f.Prefix != "":
			kind = "WordPiece"
		}
	}
	switch kind {
	case "BPE":
		return newBPE(s)
	case "WordLevel", "WordPiece":
		return newWordPiece(s, kind == "WordPiece")
	case "Unigram":
		return newUnigram(s)
	}
	return nil, fmt.Errorf("the model is of type %q, which is not known", s.Type)
}

// vocabulary numbers tokens.
type vocabulary struct {
	ids    map[string]int32
	tokens map[int32]string
	n      int // one more than the largest

	lengths []int // in bytes, that tokens have, ascending: no others are looked for
}

func newVocabulary(ids map[string]int32) (vocabulary, error) {
	v := vocabulary{ids: ids, tokens: make(map[int32]string, len(ids))}
	lengths := map[int]bool{}
	for token, id := range ids {
		lengths[len(token)] = true
		if id < 0 || id == math.MaxInt32 {
			return v, fmt.Errorf("token %q has number %d", token, id)
		}
		v.tokens[id], v.n = token, max(v.n, int(id)+1)
	}
	v.lengths = slices.Sorted(maps.Keys(lengths))
	return v, nil
}

func (v *vocabulary) token(id int32) (string, bool) {
	token, ok := v.tokens[id]
	return token, ok
}

func (v *vocabulary) lookup(token string) (int32, bool) {
	id, ok := v.ids[token]
	return id, ok
}

func (v *vocabulary) size() int { return v.n }

// unknown returns the number of the token for unknown text, or -1.
func (v *vocabulary) unknown(token *string) int32 {
	if token != nil {
		if id, ok := v.ids[*token]; ok {
			return id
		}
	}
	return -1
}

func errUnknown(text string) error {
	return fmt.Errorf("%q has no token, and there is none for unknown text", text)
}

// bytesOf appends the tokens of the bytes of text, "<0x0A>" for instance, if all have one.
func (v *vocabulary) bytesOf(dst []int32, text string) ([]int32, bool) {
	for i := range len(text) {
		id, ok := v.ids[fmt.Sprintf("<0x%02X>", text[i])]
		if !ok {
			return dst[:len(dst)-i], false
		}
		dst = append(dst, id)
	}
	return dst, true
}

// wordPiece takes the longest token that a word begins with, again and again, or, as
// WordLevel, whole words only.
type wordPiece struct {
	vocabulary
	pieces bool
	unk    int32
	prefix string // of tokens that begin no word
	most   int    // characters of a word that is not unknown
}

func newWordPiece(s *section, pieces bool) (model, error) {
	f, err := as[struct {
		Vocab  map[string]int32
		Unk    *string `json:"unk_token"`
		Prefix *string `json:"continuing_subword_prefix"`
		Most   int     `json:"max_input_chars_per_word"`
	}](s)
	if err != nil {
		return nil, err
	}
	v, err := newVocabulary(f.Vocab)
	if err != nil {
		return nil, err
	}
	w := &wordPiece{vocabulary: v, pieces: pieces, unk: v.unknown(f.Unk), prefix: "##", most: 100}
	if f.Prefix != nil {
		w.prefix = *f.Prefix
	}
	if f.Most > 0 {
		w.most = f.Most
	}
	return w, nil
}

func (w *wordPiece) encode(dst []int32, word string) ([]int32, error) {
	if id, ok := w.ids[word]; ok && (!w.pieces || utf8.RuneCountInString(word) <= w.most) {
		return append(dst, id), nil
	}
	if w.pieces && utf8.RuneCountInString(word) <= w.most {
		if list, ok := w.cut(dst, word); ok {
			return list, nil
		}
	}
	if w.unk < 0 {
		return dst, errUnknown(word)
	}
	return append(dst, w.unk), nil
}

func (w *wordPiece) cut(dst []int32, word string) ([]int32, bool) {
	prefix := ""
	for word != "" {
		end := 0
		for _, n := range slices.Backward(w.lengths) {
			n -= len(prefix)
			if n <= 0 || n > len(word) || n < len(word) && !utf8.RuneStart(word[n]) {
				continue
			}
			if id, ok := w.ids[prefix+word[:n]]; ok {
				dst, end = append(dst, id), n
				break
			}
		}
		if end == 0 {
			return dst, false
		}
		word, prefix = word[end:], w.prefix
	}
	return dst, true
}

// unigram cuts a word so that the sum of its tokens' scores is largest.
type unigram struct {
	vocabulary
	scores []float64
	unk    int32
	bytes  bool    // text without a token is its bytes
	worst  float64 // score of text without a token
}

func newUnigram(s *section) (model, error) {
	f, err := as[struct {
		Vocab [][2]any
		Unk   *int32 `json:"unk_id"`
		Bytes bool   `json:"byte_fallback"`
	}](s)
	if err != nil {
		return nil, err
	}
	u := &unigram{unk: -1, bytes: f.Bytes}
	ids := make(map[string]int32, len(f.Vocab))
	for i, x := range f.Vocab {
		token, ok := x[0].(string)
		score, number := x[1].(float64)
		if !ok || !number {
			return nil, fmt.Errorf("Unigram: vocab[%d] is %v, want a token and its score", i, x)
		}
		ids[token] = int32(i)
		u.scores, u.worst = append(u.scores, score), min(u.worst, score)
	}
	u.worst -= 10
	if f.Unk != nil && *f.Unk >= 0 && int(*f.Unk) < len(f.Vocab) {
		u.unk = *f.Unk
	}
	u.vocabulary, err = newVocabulary(ids)
	return u, err
}

func (u *unigram) encode(dst []int32, word string) ([]int32, error) {
	type node struct {
		score float64
		from  int   // where the last token begins, -1 for a place that is not reached
		id    int32 // of the last token, -1 for text without one
	}
	best := make([]node, len(word)+1)
	for i := range best {
		best[i].from = -1
	}
	best[0] = node{}
	for at := 0; at < len(word); {
		_, size := utf8.DecodeRuneInString(word[at:])
		reach := func(end int, score float64, id int32) {
			if score += best[at].score; best[end].from < 0 || score > best[end].score {
				best[end] = node{score, at, id}
			}
		}
		single := false
		for _, n := range u.lengths {
			end := at + n
			if end > len(word) {
				break
			}
			if n == 0 || end < len(word) && !utf8.RuneStart(word[end]) {
				continue
			}
			if id, ok := u.ids[word[at:end]]; ok {
				reach(end, u.scores[id], id)
				single = single || end == at+size
			}
		}
		if !single {
			reach(at+size, u.worst, -1)
		}
		at += size
	}
	var ends []int
	for end := len(word); end > 0; end = best[end].from {
		ends = append(ends, end)
	}
	var unknown strings.Builder // text without tokens, in one piece
	for i := len(ends) - 1; i >= 0; i-- {
		n := best[ends[i]]
		if n.id < 0 {
			unknown.WriteString(word[n.from:ends[i]])
			if i > 0 && best[ends[i-1]].id < 0 {
				continue
			}
			var err error
			if dst, err = u.fallback(dst, unknown.String()); err != nil {
				return dst, err
			}
			unknown.Reset()
			continue
		}
		dst = append(dst, n.id)
	}
	return dst, nil
}

func (u *unigram) fallback(dst []int32, text string) ([]int32, error) {
	if u.bytes {
		if list, ok := u.bytesOf(dst, text); ok {
			return list, nil
		}
	}
	if u.unk < 0 {
		return dst, errUnknown(text)
	}
	return append(dst, u.unk), nil
}
