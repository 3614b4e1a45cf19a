// Package landmark is attention by way of tokens that stand for others: [Landmark]
// shares a landmark's weight among its block of tokens, and with a [State] a query
// reads only the blocks that it chooses; [Meta] lets meta-tokens attend to each other.
// Their states keep tokens in states of package attention, in any of their formats, with
// memory of their own or of pages.
//
// # Letters
//
//	H, h   query heads (Heads), and a head's index
//	G, g   key and value heads (KVHeads), and a head's index
//	D, Dv  width of a query and key (HeadDim), and of a value (ValueDim)
//	b      a block of Block tokens, which a landmark ends
//	n, m   tokens of a sequence, and the meta-tokens among them
//
// Matrices are [tokens, heads*dim], row-major, heads side by side.
//
// # Provenance
//
//	Landmark   checked against landmark-attention's lm_benchmark and its MemLMCache
//	Meta       re-derived from the paper's formula; no code was published
package landmark
