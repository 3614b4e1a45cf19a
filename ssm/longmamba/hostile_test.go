package longmamba

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// TestHostileFiles reads calibrations that another program has changed, with right checksums:
// there is an error that matches ErrCalibration, or one that a filter is made of and that is
// stored again.
func TestHostileFiles(t *testing.T) {
	var b bytes.Buffer
	_, err := tinyCalibration(2, 1).WriteTo(&b)
	must(t, err)
	n := 8 + binary.LittleEndian.Uint64(b.Bytes())
	head, body := b.Bytes()[8:n], b.Bytes()[n:]
	sum := func(b []byte) []byte { return strconv.AppendUint(nil, uint64(crc32.ChecksumIEEE(b)), 16) }
	m := weightstest.Mutator{Rand: rand.New(rand.NewPCG(3, 1))}
	m.Each(func() {
		text, data := head, body
		if m.IntN(2) == 0 {
			text = m.JSON(text)
		}
		if m.IntN(2) == 0 {
			data = append(m.Bytes(data), make([]byte, len(body))...)[:len(body)]
		}
		text = bytes.ReplaceAll(text, sum(body), sum(data))
		file := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data)
		m.Try(t, len(file), func() error {
			c, err := ReadCalibration(bytes.NewReader(file))
			if err != nil && (!errors.Is(err, subquad.ErrCheckpoint) || !errors.Is(err, ErrCalibration)) {
				return err
			}
			if err != nil {
				return nil
			}
			for method := range methods {
				f, err := c.NewFilter(FilterConfig{Method: method})
				if err == nil {
					err = f.Apply(0, zeros(20, len(c.Tables[0].LogDecay)))
				}
				if err != nil {
					return fmt.Errorf("a filter: %w", err)
				}
			}
			var again bytes.Buffer
			if _, err := c.WriteTo(&again); err != nil {
				return err
			}
			_, err = ReadCalibration(&again)
			return err
		})
	})
}
