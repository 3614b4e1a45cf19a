package longmamba

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// A stored calibration is a safetensors file: train_len and lens, and for each block
// layers.{i}.fingerprint, log_tA, decay_dt_sum, alpha and dt_thre, the names of the
// official code where it has one. The metadata has a CRC-32 of all elements.
const (
	calibrationFormat = "subquad ssm calibration 1"
	// maxCalibration bounds a file: a Mamba of 2.8 billion parameters has 65 MB.
	maxCalibration = 1 << 30
)

// calibrationWriter collects tensors and their header.
type calibrationWriter struct {
	header map[string]any
	body   []byte
}

func (w *calibrationWriter) put(name, dtype string, shape []int, elements ...any) error {
	from := len(w.body)
	var err error
	for _, e := range elements {
		if w.body, err = binary.Append(w.body, binary.LittleEndian, e); err != nil {
			return wrapped(err)
		}
	}
	w.header[name] = map[string]any{"dtype": dtype, "shape": shape, "data_offsets": [2]int{from, len(w.body)}}
	return nil
}

func rowsOf(list [][]float32) (elements []any) {
	for _, row := range list {
		elements = append(elements, row)
	}
	return elements
}

// WriteTo stores the calibration as a safetensors file. It implements io.WriterTo.
// Errors match ErrCalibration, and nothing is written then, or are those of w.
func (c *Calibration) WriteTo(to io.Writer) (int64, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	if err := check.Stream(errFile, "longmamba", "writer", to); err != nil {
		return 0, err
	}
	w := calibrationWriter{header: map[string]any{}}
	lengths := make([]int64, len(c.Lengths))
	for i, n := range c.Lengths {
		lengths[i] = int64(n)
	}
	err := w.put("train_len", "I64", []int{1}, int64(c.TrainLength))
	if err == nil {
		err = w.put("lens", "I64", []int{len(lengths)}, lengths)
	}
	for i := range c.Tables {
		t, n := &c.Tables[i], len(c.Tables[i].LogDecay)
		for _, tensor := range []struct {
			name, dtype string
			shape       []int
			elements    []any
		}{
			{"fingerprint", "U64", []int{1}, []any{t.Fingerprint}},
			{"log_tA", "F64", []int{n}, []any{t.LogDecay}},
			{"decay_dt_sum", "F64", []int{n}, []any{t.DtSum}},
			{"alpha", "F32", []int{len(lengths), n}, rowsOf(t.Alpha)},
			{"dt_thre", "F32", []int{len(lengths), n}, rowsOf(t.Threshold)},
		} {
			if err == nil {
				err = w.put(fmt.Sprintf("layers.%d.%s", i, tensor.name), tensor.dtype, tensor.shape, tensor.elements...)
			}
		}
	}
	if err != nil {
		return 0, err
	}
	w.header["__metadata__"] = map[string]string{
		"format": calibrationFormat, "layers": strconv.Itoa(len(c.Tables)), "crc32": strconv.FormatUint(uint64(crc32.ChecksumIEEE(w.body)), 16),
	}
	text, err := json.Marshal(w.header)
	if err != nil {
		return 0, wrapped(err)
	}
	var written int64
	for _, part := range [][]byte{binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, w.body} {
		n, err := to.Write(part)
		written += int64(n)
		if err != nil {
			return written, wrapped(err)
		}
	}
	return written, nil
}

// ReadCalibration reads what Calibration.WriteTo wrote. Errors match ErrCheckpoint and
// ErrCalibration, where it is damaged, incomplete or not a calibration, or are those of r.
func ReadCalibration(r io.Reader) (*Calibration, error) {
	if err := check.Stream(errFile, "longmamba", "reader", r); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxCalibration+1))
	if err != nil {
		return nil, wrapped(err)
	}
	if len(b) > maxCalibration {
		return nil, check.Errorf(errFile, "longmamba: the stored calibration has more than %d bytes", maxCalibration)
	}
	f, err := weights.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, check.Errorf(errFile, "longmamba: the stored calibration: %v", err)
	}
	if f.Metadata["format"] != calibrationFormat {
		return nil, check.Errorf(errFile, "longmamba: not a stored calibration: its format is %q, want %q", f.Metadata["format"], calibrationFormat)
	}
	body := b[8+binary.LittleEndian.Uint64(b):]
	if got, want := strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 16), f.Metadata["crc32"]; got != want {
		return nil, check.Errorf(errFile, "longmamba: the stored calibration is damaged: its checksum is %s, want %s", got, want)
	}
	return readTables(f)
}

// calibrationReader finds tensors; its first error stays.
type calibrationReader struct {
	file *weights.File
	read int
	err  error
}

func (r *calibrationReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = check.Errorf(errFile, "longmamba: the stored calibration: "+format, args...)
	}
}

// readTensor reads a tensor of rank dimensions; a nonnegative n is what its last must be.
func readTensor[T any](r *calibrationReader, name string, rank int, read func(*weights.Tensor) ([]T, error)) ([]T, []int) {
	t := r.file.Tensor(name)
	switch {
	case t == nil:
		r.fail("no tensor %s", name)
		return nil, nil
	case len(t.Shape) != rank:
		r.fail("tensor %s has the shape %v, want %d dimensions", name, t.Shape, rank)
		return nil, nil
	}
	r.read++
	v, err := read(t)
	if err != nil {
		r.fail("%v", err)
		return nil, nil
	}
	return v, t.Shape
}

func (r *calibrationReader) ints(name string) []int64 {
	v, _ := readTensor(r, name, 1, (*weights.Tensor).Int64)
	return v
}

func (r *calibrationReader) floats(name string) []float64 {
	v, _ := readTensor(r, name, 1, (*weights.Tensor).Float64)
	return v
}

func (r *calibrationReader) rows(name string) (list [][]float32) {
	v, shape := readTensor(r, name, 2, (*weights.Tensor).Float32)
	if len(v) == 0 {
		return nil // a file may say that it has any number of empty rows
	}
	for i := range shape[0] {
		list = append(list, v[i*shape[1]:][:shape[1]:shape[1]])
	}
	return list
}

func (r *calibrationReader) one(name string) int64 {
	v := r.ints(name)
	if len(v) != 1 {
		r.fail("tensor %s has %d elements, want 1", name, len(v))
		return 0
	}
	return v[0]
}

func readTables(f *weights.File) (*Calibration, error) {
	r := &calibrationReader{file: f}
	c := &Calibration{TrainLength: length32(r.one("train_len"))}
	for _, n := range r.ints("lens") {
		c.Lengths = append(c.Lengths, length32(n))
	}
	layers, err := strconv.Atoi(f.Metadata["layers"])
	if err != nil || layers < 1 || layers > len(f.Names()) {
		r.fail("%q layers and %d tensors", f.Metadata["layers"], len(f.Names()))
	}
	for i := 0; i < layers && r.err == nil; i++ {
		p := fmt.Sprintf("layers.%d.", i)
		c.Tables = append(c.Tables, Table{
			Fingerprint: uint64(r.one(p + "fingerprint")), LogDecay: r.floats(p + "log_tA"), DtSum: r.floats(p + "decay_dt_sum"),
			Alpha: r.rows(p + "alpha"), Threshold: r.rows(p + "dt_thre"),
		})
	}
	if n := len(f.Names()); r.read != n {
		r.fail("%d tensors, want %d", n, r.read)
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := c.check(); err != nil {
		return nil, check.Errorf(errFile, "%v", err)
	}
	return c, nil
}

// length32 returns a length that check refuses if it is none.
func length32(n int64) int {
	if n < 0 || n > math.MaxInt32 {
		return 0
	}
	return int(n)
}

func wrapped(err error) error { return fmt.Errorf("longmamba: %w", err) }
