package simd

import (
	"fmt"
	"sort"
)

// physical lists the registers a kernel may use: not R16-R18 and R26-R31, which
// the linker, the assembler, the platform and the Go runtime use.
var physical = map[bool][]int{
	true:  seq(0, 31),
	false: append(seq(0, 15), seq(19, 25)...),
}

func seq(from, to int) (s []int) {
	for i := from; i <= to; i++ {
		s = append(s, i)
	}
	return s
}

type regSet map[armReg]bool

// allocate gives every virtual register a physical number: liveness by the
// usual backward iteration, then greedy colouring in order of first definition.
func allocate(insts []armInst) map[armReg]int {
	at := map[string]int{}
	for i, in := range insts {
		if in.label != "" {
			at[in.label] = i
		}
	}
	liveIn := make([]regSet, len(insts)+1)
	liveOut := make([]regSet, len(insts))
	for i := range liveIn {
		liveIn[i] = regSet{}
	}
	for changed := true; changed; {
		changed = false
		for i := len(insts) - 1; i >= 0; i-- {
			in := insts[i]
			out := regSet{}
			if !in.always {
				for r := range liveIn[i+1] {
					out[r] = true
				}
			}
			if in.target != "" {
				for r := range liveIn[at[in.target]] {
					out[r] = true
				}
			}
			live := regSet{}
			for r := range out {
				live[r] = true
			}
			for _, r := range in.defs {
				delete(live, r)
			}
			for _, r := range in.uses {
				live[r] = true
			}
			if len(live) != len(liveIn[i]) || liveOut[i] == nil || len(out) != len(liveOut[i]) {
				changed = true
			}
			liveIn[i], liveOut[i] = live, out
		}
	}
	if n := len(liveIn[0]); n != 0 {
		panic(fmt.Sprintf("NEON: %d registers read before they are written", n))
	}

	conflicts := map[armReg]regSet{}
	var order []armReg
	for i, in := range insts {
		for _, d := range in.defs {
			if conflicts[d] == nil {
				conflicts[d] = regSet{}
				order = append(order, d)
			}
			for r := range liveOut[i] {
				if r != d && r.vec == d.vec {
					conflicts[d][r] = true
					if conflicts[r] == nil { // defined on another path
						conflicts[r] = regSet{}
						order = append(order, r)
					}
					conflicts[r][d] = true
				}
			}
		}
	}
	number := map[armReg]int{}
	for _, r := range order {
		taken := map[int]bool{}
		for c := range conflicts[r] {
			if n, ok := number[c]; ok {
				taken[n] = true
			}
		}
		free := sort.Search(len(physical[r.vec]), func(k int) bool {
			for _, n := range physical[r.vec][:k+1] {
				if !taken[n] {
					return true
				}
			}
			return false
		})
		if free == len(physical[r.vec]) {
			panic("NEON: out of registers")
		}
		number[r] = physical[r.vec][free]
	}
	return number
}
