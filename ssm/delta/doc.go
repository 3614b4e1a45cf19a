// Package delta computes gated linear recurrences whose state is a matrix: linear
// attention, RetNet, Lightning, gated linear attention, DeltaNet, Gated DeltaNet, KDA,
// GDN-2, Comba, DPLR and the core of RWKV-7, and the blocks that published models build
// around them. A sequence of any length costs the same for each token, and can be stopped
// and gone on with anywhere.
//
//   - [Recurrence] is the recurrence, one operator for the whole family.
//   - [GatedDelta] is the block of Qwen3-Next and Qwen3.5, [SplitQKVZ] takes the older
//     layout of its weights apart.
//   - [KDA] is the block of Kimi Linear.
//   - [RWKV7] and [RWKV7FFN] are the time mixing and the channel mixing of RWKV-7, without
//     the norms in front of them and the residual sums behind.
//   - [Block] is what the blocks can do.
//
// # One family
//
// A head keeps a matrix S [K, V], which decays, of which something is erased, to which a
// token is written, and which is read:
//
//	P = S;  S = Diag(exp g) S;  S = S - what it has under the key + k v^T;  y = S^T q
//
// Members differ in g (Config.Decay) and in what is erased (Config.Erase):
//
//	linear attention                   NoDecay        NoErase
//	RetNet, Lightning                  ConstantDecay  NoErase
//	Mamba-2, simple GLA                HeadDecay      NoErase
//	GLA, RWKV-6's core                 KeyDecay       NoErase
//	DeltaNet                           NoDecay        EraseKey
//	Gated DeltaNet                     HeadDecay      EraseKey
//	Kimi Delta Attention (KDA)         KeyDecay       EraseKey
//	GDN-2                              KeyDecay       EraseGated
//	Comba                              HeadDecay      EraseVector, EraseFirst
//	DPLR, RWKV-7; IPLR without decay   KeyDecay       ErasePair
//
// DeltaProduct, several steps of the delta rule a token, is several rows a token: the decay
// stands in the first of them and is 0 in the others, and the last one's output counts.
//
// beta goes to 1 or, in models with negative eigenvalues, to 2, where a key of length 1
// makes a reflection. Without Normalize a long key can make a state grow; that is the
// model's affair.
//
// # Letters
//
//	n, t   tokens of a call, and a token's index
//	H, h   states, and heads of the values
//	Hk, Hq heads of keys and of queries
//	K, V   channels of a key or query, and of a value
//	N      channels of a head of RWKV-7, K and V both
//	Dim    width of a token that a block takes
//	g      logarithm of a decay, 0 or less
//	beta   how much of a value is written
//
// Matrices are [tokens, channels], row-major, with a stride; heads stand side by side.
//
// # Calls
//
// Forward runs a whole sequence from an empty state, Step the next tokens after those that
// a state has seen, StepBatch a token for each of many states. Run does all that, with
// everything optional in a struct. A call may pack several sequences (Offsets), each with a
// state of its own (States); States without Offsets are for a row each. Each sequence gives
// the bits that it gives alone. After the first call of a shape none of them allocates.
//
// A value that is not finite spreads to all later tokens of its sequence, and may to the
// earlier ones of its chunk.
//
// # States
//
// A [State] belongs to every operator with the same fingerprint, which is that of its
// Config and weights (but for Workers and Recurrent). Step and Run bring it up to date;
// Clone forks it; Truncate goes back over calls (StateConfig.Snapshots); WriteTo and the
// operator's ReadState store it; Recurrence.Write begins with a state from elsewhere. It is float32: rounding it to half precision between calls
// is what other implementations lost accuracy by.
//
// # Accuracy
//
// Results are the same to the bit for any Workers and any packing. A Recurrence with
// Recurrent gives the same bits for any split of a sequence; others give the same bits for
// the same split and for splits at multiples of [Chunk], and differ by about 1e-6 of the
// largest value otherwise. Logarithms of decays are summed in float64 or not at all, and
// only exponentials of numbers up to 0 are taken, so that no decay is too fast. Decays that
// leave less than 2^-103 leave nothing, and states smaller than that are set to 0 at multiples
// of Chunk: subnormal numbers would take many times as long.
//
// # Provenance
//
//	Recurrence   checked against the recurrences of flash-linear-attention (naive.py of
//	             each rule) in float64, and against ONNX's LinearAttention
//	GatedDelta   checked against Qwen3NextGatedDeltaNet and Qwen3_5GatedDeltaNet of
//	             transformers
//	KDA          checked against KimiDeltaAttention of flash-linear-attention; Kimi K3's
//	             gate of full rank is from its description
//	RWKV7, RWKV7FFN
//	             checked against rwkv_v7_demo_rnn.py of RWKV-LM
package delta
