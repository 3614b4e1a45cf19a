// Package isa knows which instruction sets the kernels have and which one is in
// use.
//
// A tier is a set of kernels. The tiers of a port are a ladder: what runs one of them
// runs all below it, and a function without a kernel for a tier takes that of the next
// one below. The best tier that the processor can run is chosen when the program
// starts; the environment variable SUBQUAD_ISA lowers it.
//
// Matrix units ([Unit]) are apart from the ladder, and so is precision: no tier
// computes in less than float32.
package isa

import (
	"fmt"
	"os"
	"strings"
)

// Tier is a set of kernels for one instruction set. Those of a port ascend; between
// ports their order means nothing.
type Tier uint8

// The tiers. Generic is portable Go, and the specification of the others.
const (
	Generic Tier = iota
	NEON         // arm64
	AVX2         // amd64 with AVX2, FMA and F16C
	AVX512       // amd64 with AVX-512 F, BW, DQ and VL
)

var names = [...]string{"generic", "neon", "avx2", "avx512"}

// String returns the name that SUBQUAD_ISA takes.
func (t Tier) String() string { return names[t] }

// Parse returns the tier of a name.
func Parse(name string) (Tier, error) {
	for i, n := range names {
		if strings.EqualFold(name, n) {
			return Tier(i), nil
		}
	}
	return 0, fmt.Errorf("isa: %q is not one of %s", name, strings.Join(names[:], ", "))
}

var (
	available = append([]Tier{Generic}, detect()...)
	active    = choose(os.Getenv("SUBQUAD_ISA"))
)

// choose returns the best available tier that is not above the one named.
func choose(name string) Tier {
	best := available[len(available)-1]
	if name == "" {
		return best
	}
	want, err := Parse(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "subquad: SUBQUAD_ISA: %v; using %v\n", err, best)
		return best
	}
	for i := len(available) - 1; i > 0; i-- {
		if available[i] <= want {
			return available[i]
		}
	}
	return Generic
}

// Available returns the tiers this machine can run, the best one last.
func Available() []Tier { return available }

// Active returns the tier in use.
func Active() Tier { return active }

// Use changes the tier in use, for tests: nothing else may be running. The
// tier must be available. It returns what puts the old one back.
func Use(t Tier) (restore func()) {
	old := active
	active = t
	return func() { active = old }
}
