package main

import (
	"github.com/subquad/subquad/asm/_gen/simd"
)

// tier is one rung of a port's ladder of instruction sets: a value of isa.Tier, by
// its name there, which is also what its kernels' names end with.
type tier struct {
	name    string
	port    string // GOARCH
	machine func() simd.Machine
}

// tiers has the rungs of each port from the top down. One that has no kernel of its
// own for a function takes that of the next rung below.
var tiers = []tier{
	{"AVX512", "amd64", func() simd.Machine { return simd.NewAMD64(16) }},
	{"AVX2", "amd64", func() simd.Machine { return simd.NewAMD64(8) }},
	{"NEON", "arm64", simd.NewARM64},
}

// ports returns the ports that have tiers.
func ports() (list []string) {
	for i, t := range tiers {
		if i == 0 || tiers[i-1].port != t.port {
			list = append(list, t.port)
		}
	}
	return list
}

// ladder returns the tiers of a port, from the top down.
func ladder(port string) (list []string) {
	for _, t := range tiers {
		if t.port == port {
			list = append(list, t.name)
		}
	}
	return list
}
