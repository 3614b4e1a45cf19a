// Package lm is the stack that all language models of this module are made of. A model
// package reads its configuration, names its tensors and makes its mixers; what it then
// does with tokens is here.
//
//   - [Model] is an embedding, layers of residual branches, a last norm and a head. It
//     runs calls ([Call]: packed sequences, states, hidden states of any layer, pooled
//     vectors, logits, likelihoods, classes) and generates ([Model.Generate], [Model.Stream],
//     [Sampler], [GenerateConfig]).
//   - [Mixer] is what lets a layer look at other tokens, [MLP] what takes each by itself;
//     a [Branch] puts a norm before either and perhaps one after it. Mixers of different
//     kinds may stand in one model.
//   - [State] is what a model remembers of a sequence: a state of each mixer, snapshots to
//     go back to, a file.
//   - [Open], [Read] and [Checkpoint] find the tensors of a published checkpoint.
//
// # Letters
//
//	n, t   tokens of a call, and a token's index
//	D      width of a token
//	I      width of an MLP's hidden layer
//	L      number of layers
//	V      rows of the embedding, and columns of the logits
//
// # The model
//
// With r [n, D] the residual stream, which begins as the embeddings, every branch of every
// layer computes
//
//	r = r + Scale Post(F(Norm(r)))
//
// F being a mixer or an MLP and Post a second norm or nothing. A transformer of Llama's kind
// has two branches to a layer, attention and MLP; Gemma 2 has norms on both sides; OLMo 2
// none before; a Mamba has one branch; Cohere's MLP is Parallel to its attention, and in
// Falcon-H1 attention to Mamba-2.
// Hidden states are the last norm of r, and logits the head's product with them.
//
// # How a call runs
//
// Where all mixers can stream, tokens go through all layers some hundred at a time: working
// memory does not grow with a call. Else, and where all mixers would rather have it so, each
// sequence goes through whole. Between two
// mixers a task takes a block of rows through everything that looks at one token only:
// the sum, the norms, the MLPs, at last the outputs. Such a piece of tokens is committed in
// the states of all layers or, where ctx ends or a callback fails, of none.
package lm
