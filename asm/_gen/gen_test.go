package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
)

// TestStale fails when a checked-in file is not what the generator writes, or
// when it would not write one that is there.
func TestStale(t *testing.T) {
	want, err := files()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, text) {
			t.Errorf("%s is stale: run go generate ./asm", name)
		}
	}
	stray, err := strays("../..", want)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stray {
		t.Errorf("%s is not generated any more: run go generate ./asm", path)
	}
}

// TestWords decodes every instruction that is written as a number and compares
// it with the mnemonic beside it.
func TestWords(t *testing.T) {
	list, err := files()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`WORD \$0x([0-9a-f]{8}) // (.*)`)
	n := 0
	for name, text := range list {
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			word, err := strconv.ParseUint(m[1], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			in, err := arm64asm.Decode([]byte{byte(word), byte(word >> 8), byte(word >> 16), byte(word >> 24)})
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[0], err)
			} else if got := in.String(); got != m[2] {
				t.Errorf("%s: %s is %s", name, m[0], got)
			}
			n++
		}
	}
	if n == 0 {
		t.Error("no WORD found")
	}
}

// TestRegisters looks for registers that a kernel must leave alone: on amd64 SP,
// BP, R14 (the goroutine) and R15, and, without AVX-512, the upper sixteen vector
// registers.
func TestRegisters(t *testing.T) {
	list, err := files()
	if err != nil {
		t.Fatal(err)
	}
	always := regexp.MustCompile(`[ (,](SP|BP|R14|R15)\b`)
	avx2 := regexp.MustCompile(`\b([XYZ](1[6-9]|2\d|3[01])|Z\d+|K[0-7])\b`)
	for name, text := range list {
		if !strings.HasSuffix(name, "_amd64.s") {
			continue
		}
		for i, l := range strings.Split(string(text), "\n") {
			if m := always.FindString(l); m != "" {
				t.Error(where(name, i, l))
			}
			if strings.Contains(name, "avx2") && avx2.MatchString(l) {
				t.Error(where(name, i, l))
			}
		}
	}
}

func where(name string, i int, line string) string {
	return fmt.Sprintf("%s:%d: %s", name, i+1, strings.TrimSpace(line))
}

// TestTileBytes compares instructions of the matrix unit, which no decoder for Go knows,
// with what GNU's assembler makes of them.
func TestTileBytes(t *testing.T) {
	for want, emit := range map[string]func(*tileText){
		"c4 e2 7b 4b a4 08 00 08 00 00": func(t *tileText) { t.load(4, "AX", "CX", 2048) },
		"c4 82 7b 4b 84 1a 00 00 00 00": func(t *tileText) { t.load(0, "R10", "R11", 0) },
		"c4 82 7b 4b 94 1c 00 00 00 00": func(t *tileText) { t.load(2, "R12", "R11", 0) },
		"c4 82 7a 4b 9c 1c 40 00 00 00": func(t *tileText) { t.store(3, "R12", "R11", 64) },
		"c4 e2 4a 5c c4":                func(t *tileText) { t.product(0, 4, 6) },
		"c4 e2 42 5c dd":                func(t *tileText) { t.product(3, 5, 7) },
	} {
		var text tileText
		emit(&text)
		code, mnemonic, _ := strings.Cut(text.String(), " // ")
		got := strings.Join(strings.Fields(strings.NewReplacer("BYTE", "", "$0x", "", ";", "").Replace(code)), " ")
		if got != want {
			t.Errorf("%s is %s, want %s", strings.TrimSpace(mnemonic), got, want)
		}
	}
}
