package tokenizer

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// bpe joins neighbours, of all that can be joined those with the lowest rank first.
type bpe struct {
	vocabulary
	merges map[[2]int32]merge
	unk    int32
	fuse   bool // a run of unknown characters is one token
	bytes  bool // characters without a token are their bytes
	whole  bool // a word that is a token is not joined from its characters
	prefix string
	suffix string
}

type merge struct{ rank, id int32 }

func newBPE(s *section) (model, error) {
	f, err := as[struct {
		Vocab  map[string]int32
		Merges []json.RawMessage
		Unk    *string `json:"unk_token"`
		Fuse   bool    `json:"fuse_unk"`
		Bytes  bool    `json:"byte_fallback"`
		Whole  bool    `json:"ignore_merges"`
		Prefix *string `json:"continuing_subword_prefix"`
		Suffix *string `json:"end_of_word_suffix"`
	}](s)
	if err != nil {
		return nil, err
	}
	v, err := newVocabulary(f.Vocab)
	if err != nil {
		return nil, err
	}
	b := &bpe{vocabulary: v, merges: make(map[[2]int32]merge, len(f.Merges)), unk: v.unknown(f.Unk), fuse: f.Fuse, bytes: f.Bytes, whole: f.Whole}
	if f.Prefix != nil {
		b.prefix = *f.Prefix
	}
	if f.Suffix != nil {
		b.suffix = *f.Suffix
	}
	for i, text := range f.Merges {
		var pair [2]string
		if err := readPair(&pair, text); err != nil {
			return nil, fmt.Errorf("BPE: merges[%d]: %w", i, err)
		}
		left, ok := v.ids[pair[0]]
		right, ok2 := v.ids[pair[1]]
		id, ok3 := v.ids[pair[0]+strings.TrimPrefix(pair[1], b.prefix)]
		if !ok || !ok2 || !ok3 {
			return nil, fmt.Errorf("BPE: merges[%d] is of %q and %q, and these or what they make is no token", i, pair[0], pair[1])
		}
		b.merges[[2]int32{left, right}] = merge{int32(i), id}
	}
	return b, nil
}

// readPair reads "left right" or ["left", "right"].
func readPair(pair *[2]string, text json.RawMessage) error {
	if text[0] == '[' {
		var list []string
		if err := json.Unmarshal(text, &list); err != nil {
			return err
		}
		if len(list) != 2 {
			return fmt.Errorf("%s, want two", text)
		}
		*pair = [2]string(list)
		return nil
	}
	var both string
	if err := json.Unmarshal(text, &both); err != nil {
		return err
	}
	left, right, ok := strings.Cut(both, " ")
	if !ok {
		return fmt.Errorf("%q, want two with a space between", both)
	}
	*pair = [2]string{left, right}
	return nil
}

// symbol is a part of a word that is one token.
type symbol struct {
	id         int32
	last, next int // neighbours, -1 for none; next -2 for a symbol that has been joined to the one before
}

// join is a pair that can be joined.
type join struct {
	rank, left, right, id int32
	at                    int
}

type joins []join

func (j joins) Len() int      { return len(j) }
func (j joins) Swap(a, b int) { j[a], j[b] = j[b], j[a] }
func (j joins) Less(a, b int) bool {
	return j[a].rank < j[b].rank || j[a].rank == j[b].rank && j[a].at < j[b].at
}
func (j *joins) Push(x any) { *j = append(*j, x.(join)) }
func (j *joins) Pop() any {
	last := (*j)[len(*j)-1]
	*j = (*j)[:len(*j)-1]
	return last
}

func (b *bpe) encode(dst []int32, word string) ([]int32, error) {
	if b.whole {
		if id, ok := b.ids[word]; ok {
			return append(dst, id), nil
		}
	}
	begin := len(dst)
	dst, err := b.characters(dst, word)
	if err != nil {
		return dst, err
	}
	joined := b.join(dst[begin:])
	return dst[:begin+joined], nil
}

// characters appends the tokens of the characters of a word.
func (b *bpe) characters(dst []int32, word string) ([]int32, error) {
	unknown := false // the last one was
	for at := 0; at < len(word); {
		_, size := utf8.DecodeRuneInString(word[at:])
		char := word[at : at+size]
		token := char
		if at > 0 {
			token = b.prefix + token
		}
		if at += size; at == len(word) {
			token += b.suffix
		}
		if id, ok := b.ids[token]; ok {
			dst, unknown = append(dst, id), false
			continue
		}
		if b.bytes {
			if list, ok := b.bytesOf(dst, char); ok {
				dst, unknown = list, false
				continue
			}
		}
		switch {
		case b.unk < 0:
			return dst, errUnknown(char)
		case !unknown || !b.fuse:
			dst = append(dst, b.unk)
		}
		unknown = true
	}
	return dst, nil
}

// join joins tokens in place and returns how many are left.
func (b *bpe) join(ids []int32) int {
	symbols := make([]symbol, len(ids))
	for i, id := range ids {
		symbols[i] = symbol{id, i - 1, i + 1}
	}
	if len(symbols) > 0 {
		symbols[len(symbols)-1].next = -1
	}
	var queue joins
	note := func(at int) {
		if at < 0 || symbols[at].next < 0 {
			return
		}
		left, right := symbols[at].id, symbols[symbols[at].next].id
		if m, ok := b.merges[[2]int32{left, right}]; ok {
			heap.Push(&queue, join{m.rank, left, right, m.id, at})
		}
	}
	for i := range symbols {
		note(i)
	}
	for len(queue) > 0 {
		j := heap.Pop(&queue).(join)
		s := &symbols[j.at]
		if s.next < 0 || s.id != j.left || symbols[s.next].id != j.right {
			continue // one of the two has been joined to another
		}
		gone := &symbols[s.next]
		s.id, s.next = j.id, gone.next
		gone.next = -2
		if s.next >= 0 {
			symbols[s.next].last = j.at
		}
		note(s.last)
		note(j.at)
	}
	n := 0
	for at := 0; at >= 0 && at < len(symbols); at = symbols[at].next {
		ids[n] = symbols[at].id
		n++
	}
	return n
}
