package transformer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/rope"
)

// llama2cMagic begins the files of llama2.c from version 1 on.
const llama2cMagic = 0x616b3432

// llama2c is what the header of a llama2.c file says: numbers and where the weights begin.
type llama2c struct {
	version                            int
	dim, inner, layers, heads, kvHeads int64
	vocab, length                      int64
	shared                             bool
	from                               int64
}

// openLlama2C opens the model of a llama2.c file, or returns nil where path is none.
func openLlama2C(path string, cfg Config, options ...subquad.OpenOption) (*Model, error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(path, ".bin") {
		return nil, nil
	}
	f, err := weights.OpenFile(path, options...)
	if err != nil {
		return nil, fmt.Errorf("transformer: %w", err)
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("transformer: %w", err)
	}
	h, err := readLlama2C(head[:n], f.Size())
	if h == nil || err != nil {
		return nil, err
	}
	shape := h.shape()
	if err := cfg.fits(shape); err != nil {
		return nil, err
	}
	r := h.safetensors(f)
	return lm.Read("transformer", r, r.size(), func(f *weights.File) (*Model, error) { return newModel(f, shape, cfg) })
}

// readLlama2C reads a header. A file of version 0 has none to know it by: its numbers must
// give the file's size.
func readLlama2C(head []byte, size int64) (*llama2c, error) {
	number := func(at int) int64 {
		if at+4 > len(head) {
			return 0
		}
		return int64(int32(binary.LittleEndian.Uint32(head[at:])))
	}
	h, at := &llama2c{from: 28}, 0
	magic := number(0) == llama2cMagic
	if magic {
		h.version, h.from, at = int(number(4)), 256, 8
		if h.version != 1 {
			return nil, check.Errorf(ErrCheckpoint, "transformer: a llama2.c file of version %d, want 0 or 1", h.version)
		}
	}
	for i, to := range []*int64{&h.dim, &h.inner, &h.layers, &h.heads, &h.kvHeads, &h.vocab, &h.length} {
		*to = number(at + 4*i)
	}
	h.shared = h.vocab > 0
	if magic {
		h.shared = len(head) > 36 && head[36] != 0
	} else if h.vocab < 0 {
		h.vocab = -h.vocab
	}
	ok := true
	for _, n := range []struct{ is, most int64 }{
		{h.dim, mostWide}, {h.inner, mostWide}, {h.layers, mostLayers}, {h.heads, mostHeads}, {h.kvHeads, mostHeads}, {h.vocab, mostVocab}, {h.length, 1 << 24},
	} {
		ok = ok && n.is > 0 && n.is <= n.most
	}
	ok = ok && h.dim%h.heads == 0 && h.heads%h.kvHeads == 0 && h.dim/h.heads%2 == 0
	switch want := int64(0); {
	case ok:
		if want = h.bytes(); want == size {
			return h, nil
		}
		if magic {
			return nil, check.Errorf(ErrCheckpoint, "transformer: a llama2.c file of %d bytes, want %d by its header", size, want)
		}
	case magic:
		return nil, check.Errorf(ErrCheckpoint, "transformer: a llama2.c file with dim %d, hidden_dim %d, n_layers %d, n_heads %d, n_kv_heads %d, vocab_size %d and seq_len %d",
			h.dim, h.inner, h.layers, h.heads, h.kvHeads, h.vocab, h.length)
	}
	return nil, nil
}

// part is a list of tensors that follow each other, one for each layer or, where the name
// has no %d, one alone.
type part struct {
	name       string
	rows, cols int64 // cols 0 is a vector
}

func (h *llama2c) parts() (list []part) {
	kv, headDim := h.dim/h.heads*h.kvHeads, h.dim/h.heads
	word := part{"model.embed_tokens.weight", h.vocab, h.dim}
	att, ffn, last := part{"model.layers.%d.input_layernorm.weight", h.dim, 0}, part{"model.layers.%d.post_attention_layernorm.weight", h.dim, 0}, part{"model.norm.weight", h.dim, 0}
	matrices := []part{
		{"model.layers.%d.self_attn.q_proj.weight", h.dim, h.dim}, {"model.layers.%d.self_attn.k_proj.weight", kv, h.dim},
		{"model.layers.%d.self_attn.v_proj.weight", kv, h.dim}, {"model.layers.%d.self_attn.o_proj.weight", h.dim, h.dim},
	}
	mlp := []part{{"model.layers.%d.mlp.gate_proj.weight", h.inner, h.dim}, {"model.layers.%d.mlp.down_proj.weight", h.dim, h.inner}, {"model.layers.%d.mlp.up_proj.weight", h.inner, h.dim}}
	if h.version == 0 {
		list = append(append([]part{word, att}, matrices...), ffn)
		list = append(append(list, mlp...), last, part{"cos.rotary_emb.inv_freq", h.length, headDim / 2}, part{"sin.rotary_emb.inv_freq", h.length, headDim / 2})
	} else {
		list = append(append([]part{att, ffn, last, word}, matrices...), mlp...)
	}
	if !h.shared {
		list = append(list, part{headName, h.vocab, h.dim})
	}
	return list
}

// each calls f with every tensor, its size in numbers, and where it begins after the header.
func (h *llama2c) each(f func(name string, p part, n, at float64)) (end float64) {
	for _, p := range h.parts() {
		n := float64(p.rows) * float64(max(p.cols, 1))
		count := int64(1)
		if strings.Contains(p.name, "%d") {
			count = h.layers
		}
		for i := range count {
			name := p.name
			if count > 1 || strings.Contains(name, "%d") {
				name = fmt.Sprintf(p.name, i)
			}
			f(name, p, n, end)
			end += n
		}
	}
	return end
}

// bytes is how large the file must be. Sums in float64 are exact up to 2^53.
func (h *llama2c) bytes() int64 {
	numbers := h.each(func(string, part, float64, float64) {})
	return int64(min(4*numbers+float64(h.from), math.MaxInt64/2))
}

// shape is the model of the header: Llama, with pairs (2i, 2i+1) rotated.
func (h *llama2c) shape() *Shape {
	s := &Shape{
		ModelType: "llama", Dim: int(h.dim), Layers: int(h.layers), Vocab: int(h.vocab), Heads: int(h.heads), KVHeads: int(h.kvHeads),
		HeadDim: int(h.dim / h.heads), Inner: int(h.inner), Windows: make([]int, h.layers), MaxPosition: h.length, BOS: 1, EOS: []int32{1, 2},
		knobs: knobs{eps: 1e-5, tied: h.shared},
	}
	s.scale = 1 / sqrt(s.HeadDim)
	for range h.layers {
		s.Rotations = append(s.Rotations, rope.Config{HeadDim: s.HeadDim, Layout: rope.Interleaved})
	}
	return s
}

// headed is a header of ours followed by the body of a file.
type headed struct {
	head *bytes.Reader
	body *io.SectionReader
}

func (r *headed) size() int64 { return r.head.Size() + r.body.Size() }

// ReadAt implements io.ReaderAt.
func (r *headed) ReadAt(b []byte, at int64) (n int, err error) {
	if at < r.head.Size() {
		if n, _ = r.head.ReadAt(b, at); n == len(b) {
			return n, nil
		}
		at += int64(n)
	}
	more, err := r.body.ReadAt(b[n:], at-r.head.Size())
	return n + more, err
}

// safetensors returns the file as one of safetensors: the tensors have names and shapes, and
// stand where they are.
func (h *llama2c) safetensors(r io.ReaderAt) *headed {
	type entry struct {
		Type    string    `json:"dtype"`
		Shape   []int64   `json:"shape"`
		Offsets [2]uint64 `json:"data_offsets"`
	}
	tensors := map[string]entry{}
	h.each(func(name string, p part, n, at float64) {
		shape := []int64{p.rows}
		if p.cols > 0 {
			shape = append(shape, p.cols)
		}
		tensors[name] = entry{"F32", shape, [2]uint64{4 * uint64(at), 4 * uint64(at+n)}}
	})
	text, err := json.Marshal(tensors)
	if err != nil {
		panic(err) // numbers and names
	}
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return &headed{bytes.NewReader(append(head, text...)), io.NewSectionReader(r, h.from, h.bytes()-h.from)}
}
