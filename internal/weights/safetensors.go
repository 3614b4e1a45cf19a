package weights

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"sort"
)

// maxHeader bounds the JSON header, as the reference implementation does.
const maxHeader = 100 << 20

// readSafetensors reads a file with a header of n bytes: 8 bytes of that number, the
// header, and the tensors without a hole between them.
func readSafetensors(r io.ReaderAt, size int64, n uint64) (*File, error) {
	if n < 2 || n > uint64(size-8) || n > maxHeader {
		return nil, formatError("a header of %d bytes in a file of %d", n, size)
	}
	header := make([]byte, n)
	if got, err := r.ReadAt(header, 8); got < len(header) {
		return nil, short(err)
	}
	entries, err := members("the header", header)
	if err != nil {
		return nil, err
	}
	f := &File{tensors: make(map[string]*Tensor, len(entries))}
	body := size - 8 - int64(n)
	spans := make([]span, 0, len(entries))
	for name, raw := range entries {
		if name == "__metadata__" {
			if err := json.Unmarshal(raw, &f.Metadata); err != nil {
				return nil, formatError("__metadata__: %v", err)
			}
			continue
		}
		t, s, err := parseTensor(name, raw, body)
		if err != nil {
			return nil, err
		}
		t.data = io.NewSectionReader(r, 8+int64(n)+s.from, s.to-s.from)
		f.tensors[name] = t
		spans = append(spans, s)
	}
	return f, checkSpans(spans, body)
}

// members splits a JSON object into its members. A name that comes twice is an error,
// and so is anything but white space after the object. what names it in errors.
func members(what string, text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, formatError("%s is not a JSON object", what)
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, formatError("%s: %v", what, unexpected(err))
		}
		name := key.(string) // a member's name is a string, or Token has failed
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, formatError("%s: %v", what, unexpected(err))
		}
		if _, ok := out[name]; ok {
			return nil, formatError("%s: %.200q comes twice", what, name)
		}
		out[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, formatError("%s: %v", what, unexpected(err))
	}
	if rest := bytes.TrimSpace(text[d.InputOffset():]); len(rest) > 0 {
		return nil, formatError("%s ends with %.20q after the object", what, rest)
	}
	return out, nil
}

// span is where a tensor stands in the body of the file.
type span struct {
	name     string
	from, to int64
}

// parseTensor reads what a header says of a tensor in a body of this many bytes.
func parseTensor(name string, raw json.RawMessage, body int64) (*Tensor, span, error) {
	wrong := func(format string, args ...any) (*Tensor, span, error) {
		return nil, span{}, formatError("tensor %.200q: %s", name, fmt.Sprintf(format, args...))
	}
	entry, err := members(fmt.Sprintf("tensor %.200q", name), raw)
	if err != nil {
		return nil, span{}, err
	}
	var kind Type
	var shape, offsets []int64
	for _, m := range []struct {
		key string
		to  any
	}{{"dtype", &kind}, {"shape", &shape}, {"data_offsets", &offsets}} {
		text, ok := entry[m.key]
		if !ok {
			return wrong("no %s", m.key)
		}
		if err := json.Unmarshal(text, m.to); err != nil {
			return wrong("%s: %v", m.key, err)
		}
	}
	size, ok := bits[kind]
	if !ok {
		return wrong("dtype %.40q is not known", string(kind))
	}
	if len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > body {
		return wrong("data_offsets %.100s in a body of %d bytes", fmt.Sprint(offsets), body)
	}
	s := span{name, offsets[0], offsets[1]}
	// The product is compared by division, so that it cannot overflow.
	bytes := s.to - s.from
	if bytes > math.MaxInt/8 || bytes > math.MaxInt64/8 {
		return wrong("%d bytes are more than this machine can address", bytes)
	}
	left := 8 * bytes / int64(size)
	exact, empty := 8*bytes%int64(size) == 0, false
	t := &Tensor{Name: name, Type: kind, Shape: make([]int, len(shape))}
	for i, d := range shape {
		t.Shape[i] = int(d)
		switch {
		case d < 0 || int64(int(d)) != d:
			exact = false
		case d == 0:
			empty = true
		case !empty:
			exact = exact && left%d == 0
			left /= d
		}
	}
	if empty && bytes != 0 || !empty && left != 1 || !exact {
		return wrong("%d bytes for shape %.100s of %s", bytes, fmt.Sprint(shape), kind)
	}
	return t, s, nil
}

// checkSpans returns an error unless the tensors fill the body without a hole or an
// overlap.
func checkSpans(spans []span, body int64) error {
	sort.Slice(spans, func(i, j int) bool {
		a, b := spans[i], spans[j]
		return a.from < b.from || a.from == b.from && a.to < b.to
	})
	var end int64
	for _, s := range spans {
		if s.from != end {
			return formatError("tensor %.200q begins at %d, where %d is expected: a hole or an overlap", s.name, s.from, end)
		}
		end = s.to
	}
	if end != body {
		return formatError("tensors end at %d of %d", end, body)
	}
	return nil
}
