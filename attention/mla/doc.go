// Package mla is multi-head latent attention, with its weights and its latent cache:
// keys and values of all heads are made of one latent vector for each token, which is
// all that a state keeps.
//
// # Letters
//
//	H   heads (Heads)
//	L   width of the latent (KVRank)
//	N   features of a head's key without position (NopeDim)
//	R   features of the shared key, turned by position (RopeDim)
//	V   width of a head's value (ValueDim)
//
// Matrices are [tokens, features], row-major; heads stand side by side.
//
// # Provenance
//
//	MLA   checked against an independent reference of DeepSeek-V2's formula, with and
//	      without LongCat-Flash's scaling
package mla
