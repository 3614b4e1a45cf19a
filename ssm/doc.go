// Package ssm runs state-space models: sequence mixing whose memory is a state of
// fixed size, so that prefill is linear in the sequence and a token of decoding
// costs the same after a million others.
//
//   - [Scan] is the selective scan of Mamba, with a decay for each channel and state.
//   - [SSD] is Mamba-2's, with one decay for a head: by matrix products over chunks
//     of a prompt, token by token in decoding.
//   - [SISO] is the recurrence of Mamba-3 with a single input and output.
//   - [Conv] is the short causal convolution in front of them, [GatedNorm] the norm
//     behind.
//   - [Mamba] and [Mamba2] are the blocks that models are made of: projections,
//     convolution, recurrence, gate.
//
// All are one family: a state decays, is written to, and is read. They take a
// sequence whole (Forward), in pieces of any length (Step), a token for each of
// many sequences (StepBatch), or several sequences packed into one call (Run).
//
// # Letters
//
//	n, t   tokens, and a token's index
//	D, d   channels, and a channel's index
//	N      states of a channel
//	G      groups of channels or heads that share B and C
//	H, P   heads, and channels of a head (D = H P)
//	K      taps of the convolution
//	dt     step: how much a token decays the state and is written to it
//	A      decay rates; B what a token is written by; C what it reads by
//	z      gate
//
// Matrices are [tokens, columns], row-major, with a stride.
//
// # States
//
// A [State] belongs to the operator that made it, or to one of the same weights. It
// can be cloned to share a prefix, and keeps snapshots to go back to if it is asked
// to. WriteTo stores it, and the operator's ReadState reads it back. After an error or a cancelled call it stands where it stood before.
//
// State values below 2^-103 are set to 0 at every 64th position, counted from the
// sequence's begin, in all forms and tiers: subnormal numbers are slow.
//
// # Accuracy
//
// Any split of a sequence gives Scan and Conv the same bits; SSD's chunks and its
// recurrence agree to a few 1e-6 of the largest value, and the same split gives the
// same bits. Results do not depend on Workers.
//
// # Provenance
//
//	Scan         checked against selective_scan_ref and selective_state_update_ref of
//	             state-spaces/mamba
//	SSD          checked against its ssd_chunk_scan_combined_ref and ssd_minimal_discrete
//	SISO         checked against its mamba3_siso_step_ref
//	GatedNorm    checked against its rms_norm_ref
//	Mamba, Mamba2   checked against its Mamba and Mamba2 modules, forward and step
//	Conv         checked against causal_conv1d_ref of causal-conv1d
package ssm
