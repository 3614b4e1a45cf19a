package weightstest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/state/statetest"
)

// Mutate opens checkpoints like one with a config.json, whose tensors, header or configuration
// another program has changed: there is an error that matches subquad.ErrCheckpoint or
// subquad.ErrConfig, in little memory, or a model, which open then tries and returns what is
// wrong with it. What is opened is always the same.
func Mutate(t *testing.T, s State, config string, open func(file, config []byte) (try func() error, err error)) {
	t.Helper()
	m := Mutator{Rand: rand.New(rand.NewPCG(2, uint64(len(s))))}
	m.attempt(t, s.File(), []byte(config), open, true)
	m.Each(func() {
		file, text := m.checkpoint(s), []byte(config)
		if config != "" && m.IntN(2) == 0 {
			text = m.JSON(text)
		}
		m.attempt(t, file, text, open, false)
	})
}

// Mutator changes checkpoints and texts, and tells what it changed in the last one.
type Mutator struct {
	*rand.Rand
	What []string
}

// Each calls f as often as there is something to change.
func (m *Mutator) Each(f func()) {
	for range statetest.Mutations() {
		m.What = m.What[:0]
		f()
	}
}

func (m *Mutator) note(format string, args ...any) {
	m.What = append(m.What, fmt.Sprintf(format, args...))
}

// attempt opens a checkpoint.
func (m *Mutator) attempt(t *testing.T, file, config []byte, open func(file, config []byte) (func() error, error), ours bool) {
	t.Helper()
	m.Try(t, len(file)+len(config), func() error {
		try, err := open(file, config)
		switch {
		case err == nil:
			if err = try(); err != nil {
				return fmt.Errorf("a model that does not run: %w", err)
			}
		case ours || !errors.Is(err, subquad.ErrCheckpoint) && !errors.Is(err, subquad.ErrConfig):
			return fmt.Errorf("error %w", err)
		}
		return nil
	})
}

// Try calls read for a file of that many bytes, and names the changes where it panics, takes much memory
// or returns an error.
func (m *Mutator) Try(t *testing.T, size int, read func() error) {
	t.Helper()
	before := statetest.Allocated()
	err := func() (err error) {
		defer func() {
			if x := recover(); x != nil {
				err = fmt.Errorf("panic: %v\n%s", x, debug.Stack())
			}
		}()
		return read()
	}()
	if n := statetest.Allocated() - before; err == nil && n > 1<<25+64*uint64(size) {
		err = fmt.Errorf("%d bytes for %d", n, size)
	}
	if err != nil {
		t.Fatalf("%q:\n%v", m.What, err)
	}
}

// checkpoint returns a file of a checkpoint with a few tensors, or bytes of the header, changed.
func (m *Mutator) checkpoint(s State) []byte {
	s = maps.Clone(s)
	names := slices.Sorted(maps.Keys(s))
	for range m.IntN(3) {
		name := names[m.IntN(len(names))]
		t, ok := s[name]
		if !ok {
			continue
		}
		switch m.IntN(8) {
		case 0:
			delete(s, name)
			m.note("no %s", name)
			continue
		case 1:
			delete(s, name)
			if i := regexp.MustCompile(`\d+`).FindStringIndex(name); i != nil {
				name = name[:i[0]] + []string{"9", "-1", "99999999999999999999", "1000000000", ""}[m.IntN(5)] + name[i[1]:]
			} else {
				name += []string{"x", ".0", "_inv"}[m.IntN(3)]
			}
		case 2:
			other := names[m.IntN(len(names))]
			t = s[other]
			m.note("%s of %s", name, other)
		case 3:
			t.Data = slices.Clone(t.Data)
			x := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0, -1, 1e38, 1e-40}[m.IntN(7)]
			for i := range t.Data {
				if m.IntN(2) == 0 {
					t.Data[i] = x
				}
			}
			m.note("%v in %s", x, name)
		default:
			t = m.reshape(t)
		}
		s[name] = t
		m.note("%s of %v, %d elements", name, t.Shape, len(t.Data))
	}
	file := s.File()
	if m.IntN(4) > 0 {
		return file
	}
	n := 8 + int(file[0]) + int(file[1])<<8 + int(file[2])<<16
	switch header := file[8:n]; m.IntN(5) {
	case 0:
		at := m.IntN(n)
		file[at] ^= 1 << m.IntN(8)
		m.note("bit of byte %d", at)
	case 1:
		file = file[:m.IntN(len(file))]
		m.note("%d bytes", len(file))
	case 2:
		types := []string{"I32", "U32", "F16", "I64", "BOO"}
		i := m.IntN(len(types))
		if at := bytes.Index(header[m.IntN(len(header)):], []byte(`"F32"`)); at >= 0 {
			copy(header[at:], bytes.Replace(header[at:], []byte(`"F32"`), []byte(`"`+types[i]+`"`), 1))
			m.note("type %s", types[i])
		}
	default:
		text := m.JSON(header)
		length := len(text)
		file = slices.Concat([]byte{byte(length), byte(length >> 8), byte(length >> 16), 0, 0, 0, 0, 0}, text, file[n:])
	}
	return file
}

// reshape returns a tensor of another shape, with as many elements or others.
func (m *Mutator) reshape(t Tensor) Tensor {
	shape := slices.Clone(t.Shape)
	switch k := m.IntN(6); {
	case k == 0:
		shape = append(shape, 1)
	case k == 1:
		shape = []int{len(t.Data)}
	case k == 2 && len(shape) > 1:
		shape[0], shape[1] = shape[1], shape[0]
	case k == 3:
		shape = slices.Insert(shape, 0, 1)
	case len(shape) > 0:
		i := m.IntN(len(shape))
		shape[i] = []int{0, 1, shape[i] + 1, shape[i] - 1, 2 * shape[i], shape[i] / 2, 3}[m.IntN(7)]
		if m.IntN(4) == 0 {
			shape = append(shape, 0, 1<<30)
		}
	}
	n := 1
	for _, d := range shape {
		n *= max(d, 0)
	}
	if n > 1<<16 {
		return t
	}
	data := make([]float32, n)
	for i := range data {
		if len(t.Data) > 0 {
			data[i] = t.Data[i%len(t.Data)]
		}
	}
	return Tensor{shape, data}
}

// JSON returns a text of JSON with a few values changed, or cut or damaged.
func (m *Mutator) JSON(text []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || m.IntN(16) == 0 {
		return m.Text(text)
	}
	for range 1 + m.IntN(2) {
		v = m.change(v, "")
	}
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	for i, s := range raw { // what no value is marshalled as
		out = bytes.ReplaceAll(out, fmt.Appendf(nil, `"raw value %d"`, i), []byte(s))
	}
	return out
}

// raw are values that are not what one may think.
var raw = []string{"0", "-1", "1", "3", "1.5", "1e9", "1e300", "1e-300", "-0", "9223372036854775807", "4294967296", "1073741824", "2147483648", "NaN", "Infinity", "null", "true", "false",
	`""`, `"x"`, `"\ud800"`, "[]", "[-1]", "[[]]", "[1e12]", "[0, 1, 2, 3]", `["x"]`, "{}", `{"a": 1}`, "16777216", "65", "1e18"}

// change returns v with one value in it changed.
func (m *Mutator) change(v any, path string) any {
	value := func() any {
		if n, ok := v.(json.Number); ok && m.IntN(2) == 0 {
			if x, err := n.Int64(); err == nil {
				x = []int64{x + 1, x - 1, 2 * x, -x, x / 2, x * x}[m.IntN(6)]
				m.note("%s: %d", path, x)
				return x
			}
		}
		i := m.IntN(len(raw))
		m.note("%s: %s", path, raw[i])
		return fmt.Sprintf("raw value %d", i)
	}
	switch x := v.(type) {
	case map[string]any:
		if len(x) == 0 || path != "" && m.IntN(8) == 0 {
			return value()
		}
		keys := slices.Sorted(maps.Keys(x))
		key := keys[m.IntN(len(keys))]
		switch m.IntN(16) {
		case 0:
			delete(x, key)
			m.note("no %s.%s", path, key)
		case 1:
			other := keys[m.IntN(len(keys))]
			x[key] = x[other]
			m.note("%s.%s of %s", path, key, other)
		default:
			x[key] = m.change(x[key], path+"."+key)
		}
		return x
	case []any:
		if len(x) == 0 || m.IntN(8) == 0 {
			return value()
		}
		i := m.IntN(len(x))
		switch m.IntN(8) {
		case 0:
			m.note("no %s[%d]", path, i)
			return slices.Delete(x, i, i+1)
		case 1:
			m.note("%s[%d] twice", path, i)
			return append(x, x[i])
		}
		x[i] = m.change(x[i], fmt.Sprintf("%s[%d]", path, i))
		return x
	}
	return value()
}

// Text returns a text with some of it cut, doubled or damaged.
func (m *Mutator) Text(text []byte) []byte {
	text = bytes.Clone(text)
	for range 1 + m.IntN(3) {
		if len(text) == 0 {
			return text
		}
		at := m.IntN(len(text))
		n := min(1+m.IntN(16), len(text)-at)
		switch m.IntN(5) {
		case 0:
			text = text[:at]
			m.note("cut to %d", at)
		case 1:
			text = slices.Insert(text, at, bytes.Clone(text[at:at+n])...)
			m.note("%d twice at %d", n, at)
		case 2:
			text = slices.Delete(text, at, at+n)
			m.note("%d less at %d", n, at)
		case 3:
			text[at] = byte(m.IntN(256))
			m.note("%d at %d", text[at], at)
		default:
			s := strings.Repeat(string(text[at:at+n]), 1+m.IntN(200))
			text = slices.Insert(text, at, []byte(s)...)
			m.note("%d bytes at %d", len(s), at)
		}
	}
	return text
}

// Bytes returns a file with a few bits or numbers of four or eight bytes changed, or cut.
func (m *Mutator) Bytes(file []byte) []byte {
	file = bytes.Clone(file)
	for range 1 + m.IntN(3) {
		n := len(file)
		if m.IntN(2) == 0 {
			n = min(n, 64)
		}
		at := m.IntN(n)
		switch m.IntN(8) {
		case 0:
			file = file[:1+m.IntN(len(file))]
			m.note("cut to %d", len(file))
		case 1:
			n := min(1+m.IntN(16), len(file)-at)
			file = slices.Insert(file, at, bytes.Clone(file[at:at+n])...)
			m.note("%d twice at %d", n, at)
		case 2, 3:
			file[at] ^= 1 << m.IntN(8)
			m.note("bit of byte %d", at)
		default:
			x := []int64{0, 1, -1, 2, 3, math.MinInt32, math.MaxInt32, 1 << 16, 1 << 30, 1 << 31, 1 << 62, math.MaxInt64, math.MinInt64}[m.IntN(13)]
			if at &^= 3; m.IntN(2) == 0 && at+4 <= len(file) {
				x = int64(binary.LittleEndian.Uint32(file[at:])) + int64(m.IntN(5)) - 2
			}
			b := binary.LittleEndian.AppendUint64(nil, uint64(x))
			copy(file[at:], b[:4<<m.IntN(2)])
			m.note("%d at %d", x, at)
		}
	}
	return file
}
