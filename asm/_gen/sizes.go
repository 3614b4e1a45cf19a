package main

import (
	"bytes"
	"fmt"
	"go/format"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// What assembly and Go must agree on besides coefficients: how much a kernel takes at
// once. It is written to internal/kernel/sizes.go.

// chunk is how many elements one call of a kernel takes at the most.
const chunk = 8192

// decodeKeys is how many keys a kernel of decoding takes at once, decodeUnit what the
// width of keys and values is a multiple of.
const decodeKeys, decodeUnit = 4, 16

// scanBlock is how many channels stand side by side in the packed states: the
// widest vector. Narrower machines take a part of it at a time.
const scanBlock = 16

// prefetchLine is what a prefetch asks for, in float32.
const prefetchLine = 16

// tierSizes are what differs between tiers: as much as registers allow.
type tierSizes struct {
	tileVectors     int   // a panel's width: columns of the largest tile of a product
	tileRows        int   // rows of that tile
	scanStates      int   // states of a vector of channels that stay in registers
	decodeScoreRows []int // query rows for which there are kernels of scores
	decodeVectors   []int // vectors of columns that the kernels of values take, and the last ones
	weightRows      []int // rows of scores that the online softmax goes over at once
	weightSums      int   // and how many sums each has under way; rounding depends on it
}

var sizesOf = map[string]tierSizes{
	"AVX512": {2, 12, 16, []int{4, 2, 1}, []int{4, 1}, []int{4, 1}, 2},
	"AVX2":   {2, 6, 8, []int{2, 1}, []int{2}, []int{1}, 4},
	"NEON":   {3, 8, 8, []int{4, 2, 1}, []int{4}, []int{1}, 4},
}

func tileVectors(m Machine) int { return sizesOf[m.Tier()].tileVectors }

// tileRows is rows, or the full height for 0.
func tileRows(m Machine, rows int) int {
	if rows == 0 {
		return sizesOf[m.Tier()].tileRows
	}
	return rows
}

func sizesFile() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(generated + `
package kernel

import "github.com/subquad/subquad/internal/isa"

`)
	constant := func(name string, value int, doc string) {
		fmt.Fprintf(&b, "// %s %s\nconst %s = %d\n\n", name, doc, name, value)
	}
	constant("Chunk", chunk, `is how many elements one call of a kernel takes at the most: the Go
// scheduler cannot interrupt assembly. It is part of what a sum's rounding
// depends on.`)
	constant("ScanBlock", scanBlock, "is how many channels stand side by side in the states of SelectiveScan.")
	constant("decodeKeys", decodeKeys, "is how many keys a kernel of DecodeTile takes at once.")
	constant("decodeUnit", decodeUnit, "is what the width of keys and values of DecodeTile is a multiple of.")
	constant("IntegerKeys", integerKeys, "is how many keys IntegerTile weighs at once, at the most.")
	constant("prefetchLine", prefetchLine, "is how many float32 a prefetch asks for.")

	var rows string
	most, widest := 0, 0
	for _, t := range tiers {
		m, s := t.machine(), sizesOf[t.name]
		cols := s.tileVectors * m.Lanes()
		rows += fmt.Sprintf("isa.%s: {lanes: %d, tileRows: %d, panelCols: %d, scanStates: %d, decodeRows: %d, decodeCols: %d},\n",
			t.name, m.Lanes(), s.tileRows, cols, s.scanStates, s.decodeScoreRows[0], s.decodeVectors[0]*m.Lanes())
		most, widest = max(most, s.tileRows), max(widest, cols)
	}
	constant("maxTileRows", most, "is the largest tileRows of a tier.")
	constant("maxPanelCols", widest, "is the largest panelCols of a tier.")
	constant("genericPanel", 4, "is the width of a panel in the generic tier, and the height of its tile.")
	fmt.Fprintf(&b, `// sizes are what a tier's kernels take at once.
type sizes struct {
	lanes      int // float32 in a vector
	tileRows   int // rows of the largest tile of a product
	panelCols  int // columns of it: the width of a panel
	scanStates int // states of SelectiveScan that stay in registers
	decodeRows int // most query rows of DecodeTile.Scores
	decodeCols int // columns of DecodeTile.Values
}

// Lanes returns how many float32 a vector of a tier has.
func Lanes(tier isa.Tier) int { return sizesOf[tier].lanes }

var sizesOf = [...]sizes{
	isa.Generic: {lanes: 1, tileRows: genericPanel, panelCols: genericPanel, scanStates: 1, decodeRows: 1, decodeCols: 1},
	%s}
`, rows)
	return format.Source(b.Bytes())
}
