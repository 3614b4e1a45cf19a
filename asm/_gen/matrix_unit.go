package main

import (
	"bytes"
	"fmt"
	"strings"
)

// The kernels of products in bfloat16 on the tiles of AMX, as text: the machine that the
// other kernels are written for has vectors, not tiles, and neither avo nor Go's assembler
// knows these instructions, which are therefore bytes with their mnemonics beside them.
// Registers are given by hand.
//
// A tile is 16 rows of 64 bytes. Tiles 0 to 3 are sums, two beside two; 4 and 5 are of
// a, 6 and 7 of b. The state of the tiles lives from LDTILECFG to TILERELEASE, within one
// function, which Go does not preempt.

// splitTileBytes is a tile, splitPartBytes the two that hold a part of a step of a panel, and
// splitRowBytes a row of a tile: a part of a step of a row of a.
const (
	splitTileBytes = 1024
	splitPartBytes = 2 * splitTileBytes
	splitRowBytes  = 64
)

// splitTerms has, by how many parts an element is split into, the products that are added
// up, as the parts of a and of b, in the order of the sum: one in which few tiles are
// loaded twice. internal/kernel has it too.
var splitTerms = map[int][][2]int{
	1: {{0, 0}},
	2: {{0, 0}, {1, 0}, {0, 1}},
	3: {{0, 0}, {1, 0}, {2, 0}, {1, 1}, {0, 1}, {0, 2}},
}

// numbers of the general registers that tiles are addressed by.
var numbers = map[string]int{"AX": 0, "CX": 1, "DX": 2, "BX": 3, "R8": 8, "R10": 10, "R11": 11, "R12": 12}

type tileText struct{ bytes.Buffer }

func (t *tileText) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// raw is an instruction as bytes.
func (t *tileText) raw(mnemonic string, code ...byte) {
	var b strings.Builder
	for i, c := range code {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "BYTE $0x%02x", c)
	}
	t.line("\t%s // %s", b.String(), mnemonic)
}

// at is a TILELOADD (VEX.F2) or TILESTORED (VEX.F3) of a tile whose rows are index bytes
// apart.
func (t *tileText) at(name string, prefix byte, tile int, base, index string, disp int) {
	b, i := numbers[base], numbers[index]
	one := byte(0xe2) // R, X and B inverted, and the map 0F38
	if i > 7 {
		one &^= 0x40
	}
	if b > 7 {
		one &^= 0x20
	}
	t.raw(fmt.Sprintf("%s tmm%d, [%s+%s+%d]", name, tile, strings.ToLower(base), strings.ToLower(index), disp),
		0xc4, one, 0x78|prefix, 0x4b, byte(0x84|tile<<3), byte(i&7<<3|b&7), byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
}

func (t *tileText) load(tile int, base, index string, disp int) {
	t.at("tileloadd", 3, tile, base, index, disp)
}

// stream is load of a tile of b. Of one or two parts it says that the tile is not needed soon
// (TILELOADDT1, VEX.66), which leaves the first cache to a and c; three are slower for it.
func (t *tileText) stream(parts, tile, disp int) {
	if parts < 3 {
		t.at("tileloaddt1", 1, tile, "BX", "CX", disp)
	} else {
		t.load(tile, "BX", "CX", disp)
	}
}

func (t *tileText) store(tile int, base, index string, disp int) {
	t.at("tilestored", 2, tile, base, index, disp)
}

// zero is a TILEZERO.
func (t *tileText) zero(tile int) {
	t.raw(fmt.Sprintf("tilezero tmm%d", tile), 0xc4, 0xe2, 0x7b, 0x49, byte(0xc0|tile<<3))
}

// product is dst += a b.
func (t *tileText) product(dst, a, b int) {
	t.raw(fmt.Sprintf("tdpbf16ps tmm%d, tmm%d, tmm%d", dst, a, b), 0xc4, 0xe2, byte(^b&15<<3|2), 0x5c, byte(0xc0|dst<<3|a))
}

const (
	splitProductArgs = "(config *byte, steps int, panels int, a *uint16, aRow int, b *uint16, bPanel int, c *float32, cRow int, add int)"
	splitRowsArgs    = "(rows int, steps int, x *float32, xRow int, dst *uint16, dstRow int)"
	splitPairsArgs   = "(pairs int, x *float32, xRow int, dst *uint16) (wild int)"
)

func splitProductName(parts, high int) string {
	return fmt.Sprintf("splitProduct%dx%dAMX", len(splitTerms[parts]), 16*high)
}

func splitRowsName(parts int) string  { return fmt.Sprintf("splitRows%dAMX", parts) }
func splitPairsName(parts int) string { return fmt.Sprintf("splitPairs%dAMX", parts) }

// arguments writes the moves of arguments, "name register" each or a name alone for one that stays
// in memory, and returns what follows them.
func (t *tileText) arguments(list ...string) (end int) {
	for i, p := range list {
		name, register, _ := strings.Cut(p, " ")
		if register != "" {
			t.line("\tMOVQ %s+%d(FP), %s", name, 8*i, register)
		}
	}
	return 8 * len(list)
}

// splitProduct writes the kernel of up to 16*high rows and of panels of 32 columns.
func (t *tileText) splitProduct(parts, high int) {
	t.line("\n// func %s%s", splitProductName(parts, high), splitProductArgs)
	t.line("// c = the products of the parts of a, up to %d rows, with those of whole panels of b, over steps of 32 of k,", 16*high)
	t.line("// and c before where add is not 0")
	t.line("// Requires: AMX-TILE, AMX-BF16")
	t.line("TEXT ·%s(SB), NOSPLIT, $0-80", splitProductName(parts, high))
	// The numbers of steps and of panels stay in memory.
	add := t.arguments("config AX", "steps", "panels", "a SI", "aRow DX", "b DI", "bPanel R9", "c R10", "cRow R11")
	t.raw("ldtilecfg [rax]", 0xc4, 0xe2, 0x78, 0x49, 0x00)
	t.line("\tMOVQ $64, CX")
	t.line("\npanel:")
	t.line("\tMOVQ R11, R12\n\tSHLQ $4, R12\n\tADDQ R10, R12")
	sums := func(do func(tile int, base, index string, disp int)) {
		for i := range high {
			for j := range 2 {
				do(2*i+j, []string{"R10", "R12"}[i], "R11", 64*j)
			}
		}
	}
	t.line("\tCMPQ add+%d(FP), $0\n\tJEQ zero", add)
	sums(t.load)
	t.line("\tJMP begin\n\nzero:")
	for tile := range 2 * high {
		t.zero(tile)
	}
	t.line("\nbegin:\n\tMOVQ SI, AX\n\tMOVQ DI, BX\n\tMOVQ steps+8(FP), R13")
	t.line("\tMOVQ DX, R8\n\tSHLQ $4, R8\n\tADDQ AX, R8")
	t.line("\nstep:")
	a, b := -1, -1
	for _, term := range splitTerms[parts] {
		if term[1] != b {
			b = term[1]
			t.stream(parts, 6, b*splitPartBytes)
			t.stream(parts, 7, b*splitPartBytes+splitTileBytes)
		}
		if term[0] != a {
			a = term[0]
			for i := range high {
				t.load(4+i, []string{"AX", "R8"}[i], "DX", a*splitRowBytes)
			}
		}
		for i := range high {
			t.product(2*i, 4+i, 6)
			t.product(2*i+1, 4+i, 7)
		}
	}
	t.line("\tADDQ $%d, AX\n\tADDQ $%d, R8\n\tADDQ $%d, BX\n\tDECQ R13\n\tJNE step", parts*splitRowBytes, parts*splitRowBytes, parts*splitPartBytes)
	sums(t.store)
	t.line("\tADDQ R9, DI\n\tADDQ $128, R10\n\tDECQ panels+16(FP)\n\tJNE panel")
	t.raw("tilerelease", 0xc4, 0xe2, 0x78, 0x49, 0xc0)
	t.line("\tRET")
}

// splitRows writes the kernel that splits rows into parts, nearest ones first.
func (t *tileText) splitRows(parts int) {
	t.line("\n// func %s%s", splitRowsName(parts), splitRowsArgs)
	t.line("// dst = %d parts of rows of x, 32 elements a step; one or two may stand where x does", parts)
	t.line("// Requires: AVX512F, AVX512BW, AVX512_BF16")
	t.line("TEXT ·%s(SB), NOSPLIT, $0-48", splitRowsName(parts))
	t.arguments("rows DX", "steps R8", "x SI", "xRow R9", "dst DI", "dstRow R10")
	t.line("\nrow:\n\tMOVQ SI, AX\n\tMOVQ DI, BX\n\tMOVQ R8, CX")
	t.line("\nstep:\n\tVMOVUPS (AX), Z0\n\tVMOVUPS 64(AX), Z1")
	for i := range parts {
		t.nearest()
		t.line("\tVMOVDQU32 Z2, %d(BX)", i*splitRowBytes)
		if i < parts-1 {
			t.line("\tVEXTRACTI64X4 $1, Z2, Y3")
			for j, half := range []string{"Y2", "Y3"} {
				t.line("\tVPMOVZXWD %s, Z4\n\tVPSLLD $16, Z4, Z4\n\tVSUBPS Z4, Z%d, Z%d", half, j, j)
			}
		}
	}
	t.line("\tADDQ $128, AX\n\tADDQ $%d, BX\n\tDECQ CX\n\tJNE step", parts*splitRowBytes)
	t.line("\tADDQ R9, SI\n\tADDQ R10, DI\n\tDECQ DX\n\tJNE row\n\tVZEROUPPER\n\tRET")
}

// nearest is Y2 and the upper half of Z2 = the nearest bfloat16 to Z0 and Z1.
func (t *tileText) nearest() {
	t.raw("vcvtne2ps2bf16 zmm2, zmm1, zmm0", 0x62, 0xf2, 0x77, 0x48, 0x72, 0xd0)
}

// splitPairs writes the kernel that splits 16 columns of pairs of rows into parts, those of a
// pair side by side.
func (t *tileText) splitPairs(parts int) {
	t.line("\n// func %s%s", splitPairsName(parts), splitPairsArgs)
	t.line("// dst = %d parts of 16 columns of pairs of rows of x; wild is not 0 where a first part is not finite", parts)
	t.line("// Requires: AVX512F, AVX512BW, AVX512_BF16")
	t.line("TEXT ·%s(SB), NOSPLIT, $0-40", splitPairsName(parts))
	wild := t.arguments("pairs DX", "x SI", "xRow R9", "dst DI")
	t.line("\tVPXORD Z7, Z7, Z7\n\tVPXORD Z8, Z8, Z8")
	t.line("\npair:\n\tVMOVUPS (SI), Z0\n\tVMOVUPS (SI)(R9*1), Z1")
	for i := range parts {
		t.nearest()
		t.line("\tVEXTRACTI64X4 $1, Z2, Y3\n\tVPMOVZXWD Y2, Z4\n\tVPMOVZXWD Y3, Z5\n\tVPSLLD $16, Z5, Z5")
		t.line("\tVPORD Z4, Z5, Z6\n\tVMOVDQU32 Z6, %d(DI)", i*splitPartBytes)
		if i == 0 || i < parts-1 {
			t.line("\tVPSLLD $16, Z4, Z4")
		}
		if i == 0 { // what is not finite times 0 is NaN
			t.line("\tVFMADD231PS Z7, Z4, Z8\n\tVFMADD231PS Z7, Z5, Z8")
		}
		if i < parts-1 {
			t.line("\tVSUBPS Z4, Z0, Z0\n\tVSUBPS Z5, Z1, Z1")
		}
	}
	t.line("\tLEAQ (SI)(R9*2), SI\n\tADDQ $64, DI\n\tDECQ DX\n\tJNE pair")
	t.line("\tVCMPPS $3, Z8, Z8, K1\n\tKMOVW K1, AX\n\tMOVQ AX, wild+%d(FP)\n\tVZEROUPPER\n\tRET", wild)
}

// splitFiles returns the assembly of the matrix unit and its declarations.
func splitFiles() (assembly, declarations []byte) {
	const head = generated + "\n//go:build !purego\n\n"
	var t, d tileText
	t.WriteString(head + "#include \"textflag.h\"\n")
	d.WriteString(head + "package kernel\n")
	declare := func(name, args string) { d.line("\n//go:noescape\nfunc %s%s", name, args) }
	for _, parts := range []int{1, 2, 3} {
		for _, high := range []int{1, 2} {
			t.splitProduct(parts, high)
			declare(splitProductName(parts, high), splitProductArgs)
		}
		t.splitRows(parts)
		declare(splitRowsName(parts), splitRowsArgs)
		t.splitPairs(parts)
		declare(splitPairsName(parts), splitPairsArgs)
	}
	return t.Bytes(), d.Bytes()
}
