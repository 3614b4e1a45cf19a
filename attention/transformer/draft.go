package transformer

import "github.com/subquad/subquad/internal/lm"

// Drafter proposes what comes next in a text (GenerateConfig.Draft): ModelDraft, Lookup, Near,
// or another with
//
//	Draft(ctx context.Context, d *Drafts) error   adds tokens to d, as many as have room
//
// The model that writes looks at all that is proposed in one call, which reads its weights and
// its past once, and chooses each token as it does without, of the logits after exactly what
// is written (speculative decoding; Leviathan et al. 2023, arXiv 2211.17192). So the text is
// the one that it writes alone, token for token: greedy, and sampled with the same Seed, with
// whatever else a SampleConfig asks for; its distribution is the model's own however bad the
// drafts are. Logits after a chain of drafts have the bits that they have without. By rounding
// (some 1e-6 of the largest) differ those after a tree, of a Replacement, and on AVX2 and NEON
// those after more than 1,024 tokens: there a text may differ where two tokens are as close.
//
// The state stands where it would once the loop ends; within the loop it may have read drafts.
// Layers with keys of all tokens go back by forgetting the last. Others (recurrent ones, rings,
// policies that forget) are copied before each call and read again what was right of it, so
// that drafts must be good to save time there. A draft model knows of the text what is in
// GenerateConfig.Seen, the prompt and what came after it.
type Drafter = lm.Drafter

// Drafts are proposed tokens, a tree after the end of a text, which is its node 0.
//
//	Text() []int32                   the text so far, not to be changed
//	Words() int                      tokens are 0 to Words() - 1
//	Room() int                       how many more can be added
//	Add(after int, token int32) int  adds a token after a node and returns its node; -1, and
//	                                 nothing is added, where that cannot be
//
// A chain adds each token after the one before. Where nodes have several children, and all
// layers are exact attention that keeps all tokens, the call is one of tree attention, in
// which each node sees the past, its ancestors and itself (Miao et al. 2023, arXiv
// 2305.09781; Yang et al., LongSpec, 2025, arXiv 2502.17421); of others the first children
// make a chain.
type Drafts = lm.Drafts

// ModelDraft drafts with a model: a smaller one of the same tokens (its NewSource, or package
// mamba's), or the same one that remembers less of the text (NewSourceWith of a Window or of
// Policies). It reads the text once, by itself.
//
//	Source  the model, and what it has read
//	Width   how many of the likeliest tokens are tried at each place of a chain of likeliest
//	        ones; 0 and 1 for one. More make a tree, of as many calls of the draft
type ModelDraft = lm.ModelDraft

// Lookup drafts what came after the last tokens where they stood before in the text, for texts
// that repeat themselves or their prompt. It costs next to nothing.
//
//	Longest, Shortest  how many of the last tokens must have stood there, at best and at
//	                   least; 0 for 3 and 1
type Lookup = lm.Lookup

// Near drafts with the model itself and its own past, of which attention reads the first Keep
// tokens and the last Recent only: no second model and no second past. It saves time where the
// past is so long that reading it takes most of a token's time. Layers without keys, with a
// window, a Replacement or a policy read what they always do.
type Near = lm.Near
