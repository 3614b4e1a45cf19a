package mamba

import (
	"io"

	"github.com/subquad/subquad/internal/lm"
)

// Prefixes keeps states of texts, for others that begin with the same tokens: what is known of a
// prompt is not computed again. A state is kept after every PrefixConfig.Every tokens of a prompt
// and after its last, and goes on with the bits that it had. It is safe for concurrent use. Its
// methods are
//
//	Lookup(tokens) (st, n, err)           a state of the first n of a prompt's tokens, never of the last
//	Prefill(ctx, tokens, last) (st, n, err)  the same and the run of the others; states on the way are kept
//	Insert(tokens, st) error              keeps a state after all of its tokens
//	Bytes() int64                         the memory of what is kept, never more than MaxBytes
//	Len() int                             how many tokens are kept, each once
//	Reset()                               forgets all
//	WriteTo(io.Writer)                    stores it for ReadPrefixes
//
// A state with a filter of LongMamba is not taken: SetFilter can give one to what Lookup returns.
type Prefixes = lm.Prefixes

// PrefixConfig says what Prefixes keep: MaxBytes is the most memory, which must be given, and
// what was used least recently goes first; Every is after how many tokens Prefill keeps a state, a
// multiple of 64, 0 for 512. Of State only Snapshots is used.
type PrefixConfig = lm.PrefixConfig

// NewPrefixes returns an empty cache of prefixes. Errors match ErrConfig.
func (m *Model) NewPrefixes(cfg PrefixConfig) (*Prefixes, error) { return m.stack.NewPrefixes(cfg) }

// ReadPrefixes reads what Prefixes.WriteTo wrote, of this model or of one with the same
// configuration and weights. What MaxBytes has no room for is left out. Errors match ErrConfig,
// ErrState or are those of r.
func (m *Model) ReadPrefixes(r io.Reader, cfg PrefixConfig) (*Prefixes, error) {
	return m.stack.ReadPrefixes(r, cfg)
}
