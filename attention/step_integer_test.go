package attention

import (
	"context"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel"
)

// int8Products has operators that must makes multiply int8 as integers, in every tier.
var int8Products bool

// rounded is a tolerance, or what rounding queries and weights allows where that is more.
func rounded(tolerance float64) float64 {
	if int8Products {
		return max(tolerance, 1e-3)
	}
	return tolerance
}

// TestInt8Products has the laws of steps over states of Int8 hold with Config.Int8Products,
// within what storage is allowed, and in the portable form too.
func TestInt8Products(t *testing.T) {
	int8Products = true
	defer func() { int8Products = false }()
	for name, law := range map[string]func(*testing.T){
		"StorageError": TestStorageError, "Turned": TestInt8Turned, "Files": TestInt8Files, "Values": TestInt8Values,
		"StepIsForward": TestStepIsForward, "StepBits": TestStepBits, "NotFinite": TestStepNotFinite, "Allocations": TestStepAllocations,
		"ScratchBytes": TestStepScratchBytesMore, "Paged": TestPagedIsContiguous,
		"Options": TestStepOptions, "Mass": TestStepMass, "Select": TestSelect, "SelectHeads": TestSelectHeads, "Program": TestStateProgram,
		"KeepProgram": TestKeepProgram, "KeepAll": TestKeepAll, "SetValues": TestSetValues, "Extra": TestExtraState, "Tree": TestTree,
	} {
		if raceEnabled && name != "StepBits" && name != "NotFinite" {
			continue // they compare numbers, with slow loops
		}
		t.Run(name, law)
	}
	if testing.Short() || raceEnabled {
		return
	}
	for name, law := range map[string]func(*testing.T){
		"Parts": TestInt8Parts, "Fork": TestFork, "Saved": TestSaved, "Gather": TestGather, "Cancel": TestCancelSoon,
		"Programs": TestPrograms, "Prefill": TestPrefill, "Weights": TestWeights,
	} {
		t.Run(name, law)
	}
}

// TestInt8ProductsError measures what rounding adds to outputs, beside what storage does: the
// numbers of the package's documentation. Processors without the instructions, and the portable
// form, give the same bits.
func TestInt8ProductsError(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, c := range []struct {
			name      string
			dim, keys int
			key       func(token, col int, x float64) float64
			most      float64
		}{
			{"N(0, 1)", 128, 512, plainKeys, 4e-4},
			{"N(0, 1)", 64, 16384, plainKeys, 4e-4},
			{"one feature + 300", 128, 512, biased(1), 1e-2},
			{"one feature of some + 300", 128, 512, biased(3), 1e-2},
		} {
			if testing.Short() && c.keys > 1000 {
				continue
			}
			a := must(t, Config{Heads: 8, KVHeads: 2, HeadDim: c.dim, Causal: true, Workers: 2})
			s := newState(t, a, StateConfig{Format: asm.Int8})
			if err := s.Append(normal(2, c.keys, 2, c.dim, c.key), normal(3, c.keys, 2, c.dim, plainKeys)); err != nil {
				t.Fatal(err)
			}
			look := func(integer bool, tile kernel.IntegerTile) []float32 {
				a.integer, a.integers = integer, tile
				dst := blank(8, 8*c.dim)
				if err := a.Run(context.Background(), &Call{Dst: dst, Q: normal(1, 8, 8, c.dim, plainKeys), State: s}); err != nil {
					t.Fatal(err)
				}
				return dst.Data
			}
			got := look(true, kernel.NewIntegerTile())
			e := errorOf(got, look(false, kernel.NewIntegerTile()))
			t.Logf("%s of %d, %d keys: %.2g", c.name, c.dim, c.keys, e)
			if !(e > 0 && e <= c.most) {
				t.Errorf("%s of %d, %d keys: rounding adds %.2g, want at most %.2g", c.name, c.dim, c.keys, e, c.most)
			}
			sameBits(t, c.name+", portable", look(true, kernel.IntegerTile{}), got)
			restore := isa.Without(isa.VNNI)
			sameBits(t, c.name+", without VNNI", look(true, kernel.NewIntegerTile()), got)
			restore()
		}
	})
}

// TestInt8ProductsConfig has the option change nothing where it is not for, and say so.
func TestInt8ProductsConfig(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		cfg := Config{Heads: 4, KVHeads: 2, HeadDim: 32, Causal: true, Workers: 1}
		plain := must(t, cfg)
		cfg.Int8Products = true
		rounds := must(t, cfg)
		if !rounds.Config().Int8Products || plain.Config().Int8Products {
			t.Error("Config does not tell of Int8Products")
		}
		if rounds.integer != (isa.Active() == isa.AVX512) {
			t.Errorf("products of integers in tier %v: %v", isa.Active(), rounds.integer)
		}
		x := tokens(plain, 1, 70)
		for format := range formats {
			s := newState(t, plain, StateConfig{Format: format}) // which belongs to both
			want := step(t, plain, s.Clone(), x)
			got := step(t, rounds, s, x)
			if format != asm.Int8 || !rounds.integer {
				sameBits(t, format.String(), got, want)
				continue
			}
			close64(t, "int8", got, want, 1e-3)
		}
	})
}
