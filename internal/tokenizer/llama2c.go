package tokenizer

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Llama2C is the tokenizer of llama2.c (tokenizer.bin): pieces with scores, of which the
// pair with the highest score is put together first. It is immutable and safe for
// concurrent use.
type Llama2C struct {
	pieces []string
	scores []float32
	ids    map[string]int32 // the first of equal pieces
}

// The tokens that llama2.c's programs take for granted: bytes begin at 3.
const (
	llama2cBOS   = 1
	llama2cBytes = 3
)

// ReadLlama2C returns the tokenizer of a tokenizer.bin: the length of the longest token
// (int32), and for each token its score (float32), length (int32) and bytes. Errors match
// subquad.ErrCheckpoint.
func ReadLlama2C(data []byte) (*Llama2C, error) {
	fail := func(format string, args ...any) (*Llama2C, error) {
		return nil, check.Errorf(subquad.ErrCheckpoint, "tokenizer: a llama2.c tokenizer: %s", fmt.Sprintf(format, args...))
	}
	if len(data) < 4 {
		return fail("%d bytes", len(data))
	}
	longest := binary.LittleEndian.Uint32(data)
	t := &Llama2C{ids: map[string]int32{}}
	for data = data[4:]; len(data) > 0; {
		id := len(t.pieces)
		if len(data) < 8 {
			return fail("token %d is cut off", id)
		}
		score, n := math.Float32frombits(binary.LittleEndian.Uint32(data)), binary.LittleEndian.Uint32(data[4:])
		data = data[8:]
		if n > longest || uint64(n) > uint64(len(data)) {
			return fail("token %d has %d bytes, want at most %d of the %d that are left", id, n, longest, len(data))
		}
		if score != score {
			return fail("the score of token %d is NaN", id)
		}
		piece := string(data[:n])
		data = data[n:]
		if _, again := t.ids[piece]; !again {
			t.ids[piece] = int32(id)
		}
		t.pieces, t.scores = append(t.pieces, piece), append(t.scores, score)
	}
	if len(t.pieces) < llama2cBytes+256 {
		return fail("%d tokens, want at least those of 256 bytes from %d on", len(t.pieces), llama2cBytes)
	}
	return t, nil
}

// Size returns the number of tokens.
func (t *Llama2C) Size() int { return len(t.pieces) }

// Encode returns the tokens of a text, with BOS before them where it is asked for: a blank
// and the characters of the text, or the bytes of those that are no tokens, put together
// pair by pair.
func (t *Llama2C) Encode(text string, bos bool) (ids []int32) {
	var list []int32
	if text != "" {
		if blank, ok := t.ids[" "]; ok {
			list = append(list, blank)
		}
	}
	list = t.characters(list, text)
	if bos {
		ids = append(ids, llama2cBOS)
	}
	return append(ids, t.merge(list)...)
}

// characters appends the tokens of characters, or of the bytes of those that are no tokens.
func (t *Llama2C) characters(list []int32, text string) []int32 {
	for at := 0; at < len(text); {
		n := 1
		for n < 4 && at+n < len(text) && text[at+n]&0xc0 == 0x80 {
			n++
		}
		if id, ok := t.ids[text[at:at+n]]; ok {
			list = append(list, id)
		} else {
			for _, b := range []byte(text[at : at+n]) {
				list = append(list, int32(b)+llama2cBytes)
			}
		}
		at += n
	}
	return list
}

// pair is two neighbours that are a token together, at the place of the first.
type pair struct {
	score       float32
	at, next    int
	left, right int32
	together    int32
}

// pairs is a heap with the highest score first, and of equal ones the first.
type pairs []pair

func (p pairs) Len() int { return len(p) }
func (p pairs) Less(i, j int) bool {
	return p[i].score > p[j].score || p[i].score == p[j].score && p[i].at < p[j].at
}
func (p pairs) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *pairs) Push(x any)   { *p = append(*p, x.(pair)) }
func (p *pairs) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// merge puts pairs of tokens together until there are none left.
func (t *Llama2C) merge(list []int32) []int32 {
	n := len(list)
	next, before := make([]int, n), make([]int, n)
	for i := range list {
		next[i], before[i] = i+1, i-1
	}
	var queue pairs
	push := func(i int) {
		if i < 0 || next[i] >= n {
			return
		}
		j := next[i]
		if id, ok := t.ids[t.pieces[list[i]]+t.pieces[list[j]]]; ok {
			heap.Push(&queue, pair{t.scores[id], i, j, list[i], list[j], id})
		}
	}
	for i := range list {
		push(i)
	}
	const gone = -1
	for len(queue) > 0 {
		p := heap.Pop(&queue).(pair)
		if list[p.at] != p.left || next[p.at] != p.next || list[p.next] != p.right {
			continue // one of the two has become something else
		}
		list[p.at], list[p.next] = p.together, gone
		next[p.at] = next[p.next]
		if next[p.at] < n {
			before[next[p.at]] = p.at
		}
		push(before[p.at])
		push(p.at)
	}
	kept := list[:0]
	for _, id := range list {
		if id != gone {
			kept = append(kept, id)
		}
	}
	return kept
}

// Decode returns the text of tokens. A blank that begins it after BOS is left out, and
// <0x41> is the byte 0x41; a number that is no token is nothing.
func (t *Llama2C) Decode(ids []int32) string {
	var text []byte
	before := int32(-1)
	for _, id := range ids {
		if id >= 0 && int(id) < len(t.pieces) {
			text, before = t.AppendText(text, before, id), id
		}
	}
	return string(text)
}

// AppendText appends the text of a token after the token before, which is negative where a
// text begins. All of them one after the other are what Decode gives.
func (t *Llama2C) AppendText(dst []byte, before, token int32) []byte {
	if token < 0 || int(token) >= len(t.pieces) || token == llama2cBOS {
		return dst
	}
	piece := t.pieces[token]
	if before == llama2cBOS {
		piece = strings.TrimPrefix(piece, " ")
	}
	if len(piece) == 6 && strings.HasPrefix(piece, "<0x") && piece[5] == '>' {
		if b, err := strconv.ParseUint(piece[3:5], 16, 8); err == nil {
			return append(dst, byte(b))
		}
	}
	return append(dst, piece...)
}
