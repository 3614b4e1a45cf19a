// Package sparse is softmax attention to chosen blocks of keys: what is chosen is attended
// to exactly, in tiles of package attention's kernel, and the rest is not read.
//
// # Letters
//
//	n, i   queries of a sequence, and a query's index
//	m, j   keys of a sequence, and a key's index
//	H, h   query heads (Heads), and a head's index
//	G, g   key and value heads (KVHeads); head h reads g = h / (H/G)
//	D, Dv  width of a query and key (HeadDim), and of a value (ValueDim)
//	A, a   blocks of queries, and a block's index
//	B, b   blocks of keys, and a block's index
//
// Matrices are [tokens, heads*dim], row-major, heads side by side, with a stride.
package sparse
