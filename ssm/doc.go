// Package ssm computes state-space models: recurrences that keep everything before a
// token in a state of fixed size. A sequence of any length costs the same for each
// token, and can be stopped and gone on with anywhere.
//
//   - [Conv] is the short causal convolution with state that stands before a scan.
//   - [Scan] is the selective scan of Mamba, with every option of it.
//   - [SSD] is the state-space duality of Mamba-2, by chunks and by the recurrence.
//   - [SISO] is the recurrence of Mamba-3 with one input and output.
//   - [GatedNorm] is the norm with a gate of Mamba-2.
//   - [Mamba] and [Mamba2] are the complete blocks, with their projections; [Block] is
//     what both can do.
//
// Package ssm/longmamba takes models to contexts longer than those of their training,
// and package ssm/mamba builds language models of these operators.
//
// # One family
//
// All are one recurrence: decay, write, read,
//
//	S = decay * S + write;   y = read(S),
//
// that differ in what decays: each state by itself (Scan), all states of a head
// together (SSD, SISO). Other members are run by the same code where they fit it:
// SSD with SSDCall.Decay is retention and gated linear attention with a gate for
// each head. Gates for each key channel, and delta rules, which erase before they write,
// are in package ssm/delta. What they share is in one place: sequences and packing, states, their
// snapshots and storage, the grid of chunks.
//
// # Letters
//
//	n, t   tokens in a sequence, and a token's index
//	D, d   channels of a scan, convolution or norm, and a channel's index
//	I, R   inner width of a Mamba block, and rank of its dt
//	H, P   heads of an SSD, and channels of a head
//	N      states of a channel
//	G      groups of channels or heads that share B and C
//	K      taps of the convolution
//	M      channels of a Mamba2 block beside its heads
//	A      decay rates: of a state, how much is left after a step
//	B, C   by which a token is written to the states, and they are read
//	dt     the step: how much of a token is written, and how much of the state is kept
//
// Matrices are [tokens, channels], row-major, with a stride.
//
// # Calls
//
// Forward runs a whole sequence from an empty state, Step the next tokens after those
// that a state has seen, StepBatch a token for each of many states. Run does all that,
// with everything optional in a struct. A call may pack several sequences (Offsets),
// each with a state of its own (States); States without Offsets are for a row each. Each
// sequence gives the bits that it gives alone.
//
// After the first call of a shape none of them allocates.
//
// # States
//
// An operator's NewState makes a [State], for it and for every operator with the same
// fingerprint, which is that of its Config and weights (but for Workers, an SSD's
// Recurrent, and the Format of a block's projections). Step and Run bring it up to date; Clone forks it;
// Truncate goes back over calls (StateConfig.Snapshots); WriteTo and the operator's
// ReadState store it.
//
// Where a call fails or is cancelled, states stand where they stood before. So that this
// costs nothing in decoding, a call of one token, or of little work, looks at its context
// once, before it begins; others keep a copy of the states to go back to.
//
// # Accuracy
//
// Results are the same to the bit for any Workers and any packing. Scan, Conv,
// SISO and Mamba give the same bits for any split of a sequence. SSD and Mamba2
// give the same bits for the same split, and for splits at multiples of [Chunk];
// others differ by about 1e-6 of the largest value. States smaller than 2^-103 are
// set to 0 at multiples of [Chunk], and decays of an SSD or SISO, of a token or of several
// together, that leave less than that leave nothing: subnormal numbers would take many times
// as long.
//
// A value that is not finite reaches the later tokens of its sequence and no earlier ones;
// of SSD and Mamba2, which multiply chunks, it may reach the earlier ones of its chunk, too,
// unless SSDConfig.Recurrent is set.
//
// # Filters
//
// A [DeltaFilter] sees and may change dt of every token and channel, in prefill
// and step alike: a dt of 0 makes a channel pass over a token. [RecordSteps],
// [ReplaySteps], [ScaleSteps] and [ChainFilters] make some. A call takes one, and so
// does a state, from a [FilterSource] such as a longmamba.Filter. A filter that panics
// fails the call; where it is a state's own, the state must then be Reset or Truncated.
//
// # Provenance
//
//	Conv        checked against causal_conv1d_ref and _update_ref of causal-conv1d
//	Scan        checked against selective_scan_ref and selective_state_update_ref of mamba
//	SSD         checked against ssd_minimal and ssd_chunk_scan_combined_ref of mamba
//	SISO        checked against mamba3_siso_step_ref of mamba
//	GatedNorm   checked against rms_norm_ref of mamba
//	Mamba       checked against Mamba.forward and step of mamba
//	Mamba2      checked against Mamba2.forward of mamba; its step ignores limits of
//	            dt, this one's does not
//	SSD's forms with its decay kept apart, and for tokens passed over: re-derived,
//	            checked against the recurrence
//	Falcon-Mamba's norms (NormDtBC): checked against its published code, written out
//	            in float64 (package mamba)
//	MLP channels beside the heads: from the published code, not checked against its
//	            numbers
package ssm
