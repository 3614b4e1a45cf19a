package transformer

import (
	"io"

	"github.com/subquad/subquad/internal/lm"
)

// Prefixes keeps what a model has computed of texts, for others that begin with the same tokens: a
// system prompt, a document, a conversation so far. What is known of a prompt is not computed
// again; a state goes on from its longest known prefix, whatever token that ends at, with the bits
// of a state that was cut back to it. Its pages of 64 tokens are shared by texts that begin alike,
// and by the states that are made of them until they go on within a page. It is safe for
// concurrent use. Its methods are
//
//	Lookup(tokens) (st, n, err)           a state of the first n of a prompt's tokens, never of the last
//	Prefill(ctx, tokens, last) (st, n, err)  the same and the run of the others, which are kept too
//	Insert(tokens, st) error              keeps what a state has of its first tokens
//	Bytes() int64                         the memory of what is kept, never more than MaxBytes
//	Len() int                             how many tokens are kept, each once
//	Reset()                               forgets all
//	WriteTo(io.Writer)                    stores it for ReadPrefixes
//
// Some layers' states cannot go back to any token: recurrent ones, rings (StateConfig.Window,
// WindowsOnly), those of a Replacement, of StateConfig.Policies and under the policy rope.Rerotate. Of these it keeps
// copies, after every PrefixConfig.Every tokens of a prompt and after its last, and a model that
// has any goes on from there.
type Prefixes = lm.Prefixes

// PrefixConfig says what Prefixes keep.
//
//	MaxBytes   the most memory, which must be given; what was used least recently goes first,
//	           the ends of texts before what they begin with. Pages that states have from Lookup,
//	           and their later tokens, are not counted
//	Every      after how many tokens Prefill copies states that must be kept whole, a multiple of
//	           64; 0 is 512
//	State      the StateConfig of the states that Lookup makes, and Insert takes
type PrefixConfig = lm.PrefixConfig

// NewPrefixes returns an empty cache of prefixes. Errors match ErrConfig.
func (m *Model) NewPrefixes(cfg PrefixConfig) (*Prefixes, error) { return m.stack.NewPrefixes(cfg) }

// ReadPrefixes reads what Prefixes.WriteTo wrote, of this model or of one with the same
// configuration and weights, and of the same StateConfig. What MaxBytes has no room for is left
// out. Errors match ErrConfig, ErrState or are those of r.
func (m *Model) ReadPrefixes(r io.Reader, cfg PrefixConfig) (*Prefixes, error) {
	return m.stack.ReadPrefixes(r, cfg)
}
