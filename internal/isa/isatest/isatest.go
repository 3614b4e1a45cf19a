// Package isatest runs tests under every tier.
package isatest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/isa"
)

// Run runs f once under each tier this machine has, as a subtest with the
// tier's name. SUBQUAD_ISA keeps the tiers above it out. A tier named in
// SUBQUAD_REQUIRE_ISA (comma-separated) that cannot run is a failure; others
// are reported. SUBQUAD_ONLY_ISA leaves all tiers but one out, where the others are
// tested elsewhere and time is short.
//
// Tests that call Run must not be parallel to others: the tier is global.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	// Package isa reads it before tests begin, where go test does not see that
	// results depend on it.
	limit, only := os.Getenv("SUBQUAD_ISA"), os.Getenv("SUBQUAD_ONLY_ISA")
	var ran []string
	for _, tier := range isa.Available() {
		if tier > isa.Active() || only != "" && only != tier.String() {
			continue
		}
		ran = append(ran, tier.String())
		t.Run(tier.String(), func(t *testing.T) {
			defer isa.Use(tier)()
			f(t)
		})
	}
	if len(ran) == 0 {
		t.Errorf("this machine, under SUBQUAD_ISA=%q, has no tier %q", limit, only)
	}
	for _, name := range strings.Split(os.Getenv("SUBQUAD_REQUIRE_ISA"), ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(ran, name) {
			t.Errorf("SUBQUAD_REQUIRE_ISA asks for %s; this machine, under SUBQUAD_ISA=%q, ran %s", name, limit, strings.Join(ran, ", "))
		}
	}
	for _, tier := range []isa.Tier{isa.NEON, isa.AVX2, isa.AVX512} {
		if !slices.Contains(ran, tier.String()) {
			t.Logf("not run: tier %v", tier)
		}
	}
}

// Allocations returns how many allocations a call of f makes once it is warm. It
// takes the least of a few measurements: where a goroutine has not quite ended
// when the next begins, the runtime makes a new one, and that is nobody's fault.
func Allocations(f func()) float64 {
	f()
	least := testing.AllocsPerRun(5, f)
	for range 4 {
		if least > 0 {
			least = min(least, testing.AllocsPerRun(5, f))
		}
	}
	return least
}
