// Package longmamba takes Mamba models to contexts longer than those of their training,
// without training: LongMamba (2025, arXiv 2504.16053), and DeciMamba (2024, arXiv
// 2406.14528).
//
// A channel whose state decays within a sequence of the training's length is local: it
// sees the same in longer sequences. Others are global, and what they have learned to
// keep is as many tokens as a sequence of the training had. LongMamba lets only their
// largest steps dt through, as many as have the sum that all steps had in training:
//
//	Calibrator    looks at the steps of a few sequences of the training's length
//	Calibration   how much of each channel's state remains, and thresholds of its
//	              steps for prompts of any length; it can be stored, and another model
//	              refuses it (its fingerprint)
//	Filter        what is done by these numbers; in ssm.StateConfig it filters a prompt,
//	              however it is cut, by the row of the tables for its whole length
//	Decimation    DeciMamba: which tokens go on to the later layers
//
// [Report] tells what a filter has done to each channel.
//
// # Letters
//
//	n, t   tokens in a sequence, and a token's index
//	S      tokens in a sequence of the training (TrainLength)
//	D, d   channels of a scan, or heads of an SSD, and the index of one
//	N      states of a channel
//	A      decay rates [channels, N]
//	dt     the step: how much of a token is written, and how much of the state is kept
//	b, c   the official code's names of FilterConfig.Scale and FilterConfig.Threshold
//
// # What to know
//
// Receptive fields are kept as logarithms, so that thresholds like 1e-30, which the
// paper has for Mamba, do not underflow. Filtering is a comparison for each token and
// channel; a token that a head of an SSD passes over is read from a state that stands
// still, for less than half the work where few are kept. Decoding is not filtered, as
// published, unless FilterConfig.Decode is set.
//
// [Filter.Apply] has the other rules of the official code. LongMamba helps as far as a
// model's steps tell important tokens from others, which is no law; the paper's results
// are the paper's.
//
// # Provenance
//
//	Calibrator, Filter (Mamba-2), the other rules
//	            checked against the official LongMamba: its functions and Mamba2.forward
//	Calibrator, Filter (Mamba)
//	            calibration checked against the official code of an early version; how
//	            a Mamba is filtered is not public: the same mask for each channel
//	Decimation  checked against get_non_decimated_indices of DeciMamba
package longmamba
