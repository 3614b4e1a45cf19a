package approx

import (
	"context"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestScratchBytes: no call takes more memory than is said, that of the attention within it
// included, nor far less.
func TestScratchBytes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, sh := range []shape{{4, 2, 32, 48}, {1, 1, 100, 100}, {12, 12, 5, 5}, {32, 1, 16, 16}, {2, 2, 3, 130}, {1, 1, 1, 1}} {
			for _, n := range []int{0, 1, 9, 300, 5000} {
				if n > 300 && testing.Short() || n < 300 && sh.dim > 4 {
					continue
				}
				for _, variant := range []string{"plain", "both", "each head weighted"} {
					if variant != "both" && (n != 300 || testing.Short() && sh.dim != 5) {
						continue
					}
					for _, op := range operators(t, sh, 2) {
						before := isatest.HeldBehind(op.run)
						c := randomCall(1, op.shape, n, n)
						op.dress(c, variant)
						for range 2 {
							if err := op.run.Run(context.Background(), c.call()); err != nil {
								t.Fatal(err)
							}
						}
						held, said := isatest.HeldBehind(op.run)-before, op.bytes(n)
						if held > said || n >= 300 && sh.dim > 4 && held < said/40 {
							t.Errorf("%s %v of %d tokens, %s, holds %d bytes, ScratchBytes is %d", op.name, sh, n, variant, held, said)
						}
					}
				}
			}
		}
	})
}
