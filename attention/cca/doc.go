// Package cca is Core-Context-Aware attention: groups of tokens of the far past are
// pooled into cores, and a query sees the cores of the far past and the tokens of the
// near past in one softmax of package attention's kernel. A [State] decodes in the
// memory of the cores and the window; it keeps both in states of package attention, in
// any of their formats, with memory of its own or of [Pages].
//
// # Letters
//
//	H, h   query heads (Heads), and a head's index
//	G      key and value heads (KVHeads); a core belongs to a query head
//	D, Dv  width of a query and key (HeadDim), and of a value (ValueDim)
//	g, w   tokens of a group (GroupSize) and of the window (Window)
//	p      a group, and its core
//	n      tokens of a sequence
//
// Matrices are [tokens, heads*dim], row-major, heads side by side.
//
// # Provenance
//
//	CCA   checked against CCA-Attention's dense path and its decoding with a cache that
//	      is trimmed in every layer
//	Levels, CountTokens, Blocks   ours, not the paper's
package cca
