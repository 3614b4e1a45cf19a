// Package text turns text into the tokens of a language model and back, and conversations
// into the text that a chat model was trained on.
//
//   - [Open] reads the tokenizer of a published checkpoint: tokenizer.json, Hugging Face's
//     file, or llama2.c's tokenizer.bin; [Bytes] is that of models that read bytes.
//   - [Tokenizer] encodes and decodes, and tells the text of tokens one by one as they are
//     generated: it is the Words of the models' GenerateConfig.
//   - [OpenTemplate] recognises the chat template of a checkpoint, and [Template.Apply] makes
//     tokens of messages with it.
//   - [Ends] finds the tokens that end a text, by the files of a checkpoint.
//
// # Templates
//
// A chat template is a program in Jinja, of the checkpoint's author. It is not run: what it
// does is recognised by its text, as one of the families below with their variants, and done
// by this package. A template that is not recognised is an error that matches ErrCheckpoint
// and tells what it has in it: a conversation that looks a little different from those of the
// training only makes a model worse.
//
//	ChatML   <|im_start|>role … <|im_end|>: Qwen, SmolLM and many others; default system
//	         prompts, and thoughts that are left out of earlier answers (Qwen3, QwQ)
//	Llama 3  <|start_header_id|>role<|end_header_id|> … <|eot_id|>; 3.1 and later with dates
//	Qwen3.5  ChatML with thoughts of all answers after the last question
//	SmolLM3  ChatML with a system prompt that tells the day and whether to think
//	Llama 2  [INST] <<SYS>> … <</SYS>> … [/INST]
//	Mistral  [INST] … [/INST]: the forms before v1, v1, v3, v3-tekken and v7, which has
//	         [SYSTEM_PROMPT], of Mistral Large 2411, Small 3 and 3.1, and those of 2512
//	Gemma    <start_of_turn>role … <end_of_turn>; Gemma 3 with a system prompt
//	Phi-3    <|role|> … <|end|>; Phi-3.5 and Phi-4-mini
//	Zephyr   <|role|> … EOS; TinyLlama
//	DeepSeek <｜User｜> … <｜Assistant｜> … EOS: V3, R1 and what was made of it, V3.1
//	gpt-oss  <|start|>role<|channel|>…<|message|> … <|end|> (harmony)
//
// Roles are system, user and assistant. What a family does not allow is an error: a system
// prompt for Gemma 2, two messages of a user one after the other for Mistral.
//
// # Text that nobody vouches for
//
// Names of special tokens in messages, "<|im_end|>" for instance, are text like any other:
// only the template makes special tokens, so that a message cannot end itself and begin
// another. Where a family's mark is no token of a tokenizer but plain text ([INST] of older
// Mistral models), a message with it is an error that matches ErrCall.
//
// # Provenance
//
// Templates are re-derived from the published ones. What they give for conversations is
// checked with the expectations that llama.cpp's tests have for the published templates
// (ChatML, Mistral, Gemma, Llama 3, Phi-3), with what Jinja itself makes of the published
// template (Qwen3.5, SmolLM3, Llama 2, Mistral v7, Zephyr, DeepSeek), and else from the
// templates' text. Tools and pictures are not done.
package text
