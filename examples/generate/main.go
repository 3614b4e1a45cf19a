// Command generate continues a prompt with a language model of any room: a transformer, a
// Mamba, an RWKV-7, a HyenaDNA.
//
//	go run ./examples/generate
//	go run ./examples/generate -weights bible -prompt "And Moses said unto " -temperature 0.7 -seed 3
//	go run ./examples/generate -weights SmolLM2-135M-Instruct -format bfloat16 -chat -prompt "Why is the sky blue?"
//	go run ./examples/generate -weights stories15M.bin -min-p 0.05 -stop "The end"
//	go run ./examples/generate -weights stories -bytes -prompt "One day, a litt"
//	go run ./examples/generate -weights SmolLM2-1.7B -draft SmolLM2-135M
//	go run ./examples/generate -score book.txt -window 4096
//	go run ./examples/generate -recent 256 -endless -n 5000
//	go run ./examples/generate -weights SmolLM2-135M-Instruct -chat -recent 2000
//
// Without -weights two small models that are built in write one after the other: a Llama of
// children's stories (stories260K of karpathy/tinyllamas), and a Mamba-2 of the King James
// Bible, which reads and writes bytes. "-weights stories" and "-weights bible" are one of them.
// Else -weights is any checkpoint that the packages transformer, mamba, rwkv and dna open: a
// folder as the Hugging Face hub has it, or one of its files, or llama2.c's *.bin, or RWKV's
// *.pth; its config.json tells which it is. The tokenizer beside it (RWKV's own is
// rwkv_vocab_v20230424.txt) turns text into tokens; a vocabulary of 256 is bytes; with any other
// the prompt is token ids.
//
// Names of special tokens in a prompt, "<|im_start|>" for instance, stand for these tokens.
// With -chat the prompt is a message, and its text is text: the checkpoint's chat template
// makes the conversation. Without -prompt each line of the standard input is a message then.
//
// Tokens are drawn at a temperature of 0.8: always the likeliest one soon goes in circles. The
// text ends at a token that the checkpoint's files say ends it, or at a text of -stop.
//
// It prints the text as it comes, then tokens per second and what memory weights and state
// take. With -score it prints the bits per token of a file instead, each window of it read
// from an empty state.
//
// With -recent a transformer writes on where the texts that it was trained on ended: it sees the
// first four and the last tokens at positions counted within these, in memory that does not grow;
// with -extend too it sees all tokens, and those before by groups.
//
// With -bytes the model is one of bytes, with exact probabilities: a prompt may end within a
// token, where a model of tokens goes astray. With -draft a smaller model of the same tokens
// drafts, or the model itself by the last tokens of its past (near), or the text (lookup); the
// model writes what it would have written alone, drawn tokens too.
//
// Everything but the built-in weights is in packages that any program can import: see
// examples/internal/language, which opens the models.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/text"
)

//go:embed model/model.safetensors
var weights []byte

//go:embed model/config.json
var config []byte

const (
	about = `generate continues a prompt with a language model: two small ones that are built in (children's
stories, the King James Bible), or any checkpoint of a transformer (Llama, Qwen, Gemma, ... or
llama2.c's), a Mamba, an RWKV-7 or a HyenaDNA. It prints the text as it comes, tokens per second,
and what memory weights and state take. With -score it prints the bits per token of a file instead.`
	usage = `	go run ./examples/generate
	go run ./examples/generate -weights bible -prompt "And Moses said unto " -seed 3
	go run ./examples/generate -weights SmolLM2-135M-Instruct -chat -prompt "Why is the sky blue?"
	go run ./examples/generate -recent 256 -endless -n 5000
	go run ./examples/generate -score book.txt -window 4096`
)

// options are the command's flags.
type options struct {
	open                          language.Options
	weights, prompt, score        string
	system                        string
	template                      text.TemplateConfig
	window                        int
	long                          language.Long
	draft                         string
	greedy, endless, chat, counts bool
	bytes                         bool
	generate                      transformer.GenerateConfig
}

// stdin has the messages of a conversation.
var stdin io.Reader = os.Stdin

func main() { program.Main("generate", command) }

func flags(o *options) *flag.FlagSet {
	f := program.Flags("generate", about, usage)
	f.StringVar(&o.weights, "weights", "", "checkpoint: a `file` or folder, or stories or bible, which are built in (default: these two)")
	f.StringVar(&o.open.Format, "format", "float32", "`type` of the weights in memory: float32, bfloat16, float16 or int8")
	f.StringVar(&o.prompt, "prompt", "", "`text` to continue, or token ids like \"1 20 300\" (default: one that suits the model)")
	f.IntVar(&o.generate.MaxTokens, "n", 300, "tokens to generate")
	f.Float64Var(&o.generate.RepetitionPenalty, "repetition-penalty", 1, "divides the logits of tokens that are there already")
	f.Float64Var(&o.generate.Temperature, "temperature", 0.8, "how much chance has a part; 0 takes the likeliest token")
	f.BoolVar(&o.greedy, "greedy", false, "take the likeliest token, as -temperature 0 does")
	f.IntVar(&o.generate.TopK, "top-k", 0, "choose among the `k` likeliest tokens (default: all)")
	f.Float64Var(&o.generate.TopP, "top-p", 0, "choose among the likeliest tokens that together have the probability `p` (default: all)")
	f.Float64Var(&o.generate.MinP, "min-p", 0, "choose among tokens with `p` of the likeliest one's probability (default: all)")
	f.Uint64Var(&o.generate.Seed, "seed", 1, "of the random numbers")
	f.Func("stop", "`text` that ends the text; may be given again", func(s string) error {
		if s == "" {
			return errors.New("want a text that is not empty")
		}
		o.generate.StopText = append(o.generate.StopText, s)
		return nil
	})
	f.BoolVar(&o.endless, "endless", false, "go on after a token that ends the text")
	f.BoolVar(&o.counts, "logprobs", false, "tell how likely each token was, to the standard error")
	f.BoolVar(&o.chat, "chat", false, "the prompt is a message for the checkpoint's chat template; without one, lines of the standard input are")
	f.StringVar(&o.system, "system", "", "with -chat, the system prompt, a `text`")
	f.StringVar(&o.template.Reasoning, "reasoning", "", "with -chat, how `much` a gpt-oss thinks: low, medium or high")
	f.BoolVar(&o.template.NoThinking, "no-thinking", false, "with -chat, do without thoughts (Qwen3, SmolLM3)")
	f.BoolVar(&o.template.Thinking, "thinking", false, "with -chat, think, where a model does so only if it is told to (DeepSeek-V3.1)")
	f.IntVar(&o.long.Recent, "recent", 0, "attention sees the last `n` tokens and the first four, so that a text or a conversation may be endless (default: all)")
	f.IntVar(&o.long.Group, "extend", 0, "with -recent, attention sees the tokens before too, `g` of them at one position (Self-Extend)")
	f.BoolVar(&o.bytes, "bytes", false, "write byte by byte, with exact probabilities; -n counts bytes")
	f.StringVar(&o.draft, "draft", "", "what drafts tokens, the text staying the same: a smaller checkpoint of the same tokens (a `file` or folder, or stories or bible), near (the model itself, reading the last 512 tokens), or lookup (what came after the last tokens before)")
	f.StringVar(&o.score, "score", "", "print the bits per token of a `file` instead")
	f.IntVar(&o.window, "window", 4096, "tokens of the file to each window")
	f.IntVar(&o.open.Workers, "workers", 0, "goroutines (default: one for each processor)")
	return f
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	if err := program.Parse(flags(&o), args, stderr); err != nil {
		return err
	}
	if o.greedy {
		o.generate.Temperature = 0
	}
	switch {
	case o.generate.MaxTokens < 1:
		return fmt.Errorf("-n is %d, want 1 or more", o.generate.MaxTokens)
	case o.window < 1:
		return fmt.Errorf("-window is %d, want 1 or more", o.window)
	case o.bytes && (o.chat || o.score != "" || len(o.generate.StopText) > 0 || o.draft != ""):
		return errors.New("-bytes goes with neither -chat nor -score, -stop or -draft")
	case o.draft != "" && o.score != "":
		return errors.New("-draft does not go with -score")
	case o.long.Recent < 0 || o.long.Group < 0 || o.long.Group > 0 && o.long.Recent == 0:
		return fmt.Errorf("-recent is %d and -extend %d, want 0 or more, and -extend with -recent", o.long.Recent, o.long.Group)
	case o.long.Recent > 0 && (o.bytes || o.score != ""):
		return errors.New("-recent goes with neither -bytes nor -score")
	case !o.chat && (o.system != "" || o.template.Reasoning != "" || o.template.Thinking || o.template.NoThinking):
		return errors.New("-system, -reasoning, -thinking and -no-thinking are for a conversation: they need -chat")
	}
	if _, err := transformer.NewSampler(o.generate.SampleConfig); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "transformer: "))
	}
	names := []string{o.weights}
	switch {
	case o.weights == "" && o.long.Recent > 0:
		names = []string{"stories"}
	case o.weights == "" && o.score != "":
		names = []string{"bible"}
	case o.weights == "":
		names = []string{"stories", "bible"}
	}
	for i, name := range names {
		m, prompt, err := open(name, o.open)
		if err != nil {
			return err
		}
		if i > 0 {
			if _, err := io.WriteString(stdout, "\n\n"); err != nil {
				return err
			}
		}
		o := o
		if o.prompt == "" && !o.chat {
			o.prompt = prompt
		}
		if err := run(ctx, m, o, stdout, stderr); err != nil {
			return err
		}
	}
	return nil
}

// open returns a model, and a prompt that suits it.
func open(name string, o language.Options) (*language.Model, string, error) {
	_, missing := os.Stat(name)
	switch {
	case missing != nil && name == "stories":
		m, err := language.Stories(o)
		return m, "Once upon a time", err
	case missing != nil && name == "bible":
		m, err := language.OfBytes(weights, config, o)
		return m, "In the beginning ", err
	}
	m, err := language.Open(name, o)
	if err != nil {
		return nil, "", err
	}
	prompt := "In the beginning "
	if m.Room == "dna" {
		prompt = "ACGT"
	} else if _, err := m.Words.Encode(prompt); err != nil {
		prompt = "0"
	}
	return m, prompt, nil
}

// run does what the flags ask of a model.
func run(ctx context.Context, m *language.Model, o options, stdout, stderr io.Writer) error {
	if o.score != "" {
		data, err := os.ReadFile(o.score)
		if err != nil {
			return err
		}
		bits, n, err := score(ctx, m, string(data), o.window, program.NewProgress(stderr, "tokens"))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%.5f bits per token, %d tokens in windows of %d\n", bits, n, o.window)
		return err
	}
	if o.generate.Words, o.generate.Stop = m.Words, m.Stop; o.endless {
		o.generate.Stop = []int32{}
	}
	o.generate.LogProbs = o.counts
	switch {
	case o.bytes:
		return byBytes(ctx, m, o, stdout, stderr)
	case o.draft != "":
		var err error
		if o.generate.Draft, err = drafter(m, o); err != nil {
			return err
		}
	}
	if o.chat {
		return converse(ctx, m, o, stdout, stderr)
	}
	prompt, err := m.Words.Encode(o.prompt)
	if err != nil {
		return err
	}
	w := &writing{model: m, options: &o, stdout: stdout, stderr: stderr, shown: language.Decode(m.Words, prompt)}
	if _, err := w.write(ctx, prompt, nil); err != nil {
		return err
	}
	return w.report()
}
