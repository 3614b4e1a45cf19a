package simd

import (
	"fmt"
	"strings"
)

// Printing.

func (m *arm64) finish() {
	f := m.fn
	// Constants are loaded after the parameters, before anything can branch.
	f.insts = append(f.prologue, f.insts...)
	number := allocate(f.insts)
	fmt.Fprintf(&m.out, "\n// func %s%s\n", f.name, f.sig.text)
	for _, line := range strings.Split(f.doc, "\n") {
		fmt.Fprintf(&m.out, "// %s\n", line)
	}
	fmt.Fprintf(&m.out, "TEXT ·%s(SB), NOSPLIT, $0-%d\n", f.name, f.sig.size)
	for _, in := range f.insts {
		if in.label != "" {
			fmt.Fprintf(&m.out, "%s:\n", in.label)
			continue
		}
		text := in.text
		word := in.word
		for i := len(in.args) - 1; i >= 0; i-- {
			n := number[in.args[i]]
			text = strings.ReplaceAll(text, fmt.Sprintf("%%%d", i), fmt.Sprint(n))
			if in.word != 0 {
				word |= uint32(n) << in.shifts[i]
			}
		}
		if in.word != 0 {
			text = fmt.Sprintf("WORD $0x%08x // %s", word, text)
		}
		fmt.Fprintf(&m.out, "\t%s\n", text)
	}
}
