// Command generate continues a prompt with a Mamba language model.
//
//	go run ./examples/generate
//	go run ./examples/generate -prompt "And Moses said unto " -temperature 0.7 -seed 3
//	go run ./examples/generate -greedy
//	go run ./examples/generate -weights mamba2-130m/model.safetensors -prompt "Long sequences"
//	go run ./examples/generate -score book.txt -window 4096
//
// Without -weights the model is a small one that reads and writes bytes, built in.
// With it, any Mamba or Mamba-2 checkpoint: a file of safetensors or PyTorch, the index of several,
// or their folder, with its config.json. A tokenizer.json there turns text into tokens; a vocabulary of 256 is
// bytes; with any other the prompt is token ids. Names of special tokens in a prompt,
// "<|im_start|>" for instance, stand for these tokens. The text ends at a token that the
// checkpoint's generation_config.json, config.json or tokenizer says ends it.
//
// Tokens are drawn at a temperature of 0.8: always the likeliest one soon goes in circles.
//
// It prints the text, then tokens per second and what memory weights and state
// take: the state's does not grow with the text. With -score it prints the bits per
// token of a file instead, each window of it read from an empty state.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/mamba"
)

//go:embed model/model.safetensors
var weights []byte

//go:embed model/config.json
var config []byte

const (
	about = `generate continues a prompt with a Mamba language model: a small one of the King James Bible, built
in, or any Mamba or Mamba-2 checkpoint. It prints the text, tokens per second, and what memory
weights and state take. With -score it prints the bits per token of a file instead.`
	usage = `	go run ./examples/generate -prompt "And Moses said unto " -seed 3
	go run ./examples/generate -weights mamba2-130m/model.safetensors -prompt "Long sequences"
	go run ./examples/generate -score book.txt -window 4096`
)

// options are the command's flags.
type options struct {
	weights, format, prompt, score string
	window, workers                int
	greedy, endless                bool
	generate                       mamba.GenerateConfig
}

func main() { program.Main("generate", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := program.Flags("generate", about, usage)
	f.StringVar(&o.weights, "weights", "", "Mamba checkpoint, a safetensors or PyTorch `file`, an index or a folder (default: a small model of bytes, built in)")
	f.StringVar(&o.format, "format", "float32", "`type` of the weights in memory: float32, bfloat16, float16 or int8")
	f.StringVar(&o.prompt, "prompt", "", "`text` to continue, or token ids like \"1 20 300\" (default: \"In the beginning \", or token 0)")
	f.IntVar(&o.generate.MaxTokens, "n", 300, "tokens to generate")
	f.Float64Var(&o.generate.Temperature, "temperature", 0.8, "how much chance has a part; 0 takes the likeliest token")
	f.BoolVar(&o.greedy, "greedy", false, "take the likeliest token, as -temperature 0 does")
	f.BoolVar(&o.endless, "endless", false, "go on after a token that ends the text")
	f.IntVar(&o.generate.TopK, "top-k", 0, "choose among the `k` likeliest tokens (default: all)")
	f.Float64Var(&o.generate.TopP, "top-p", 0, "choose among the likeliest tokens that together have the probability `p` (default: all)")
	f.Uint64Var(&o.generate.Seed, "seed", 1, "of the random numbers")
	f.StringVar(&o.score, "score", "", "print the bits per token of a `file` instead")
	f.IntVar(&o.window, "window", 4096, "tokens of the file to each window")
	f.IntVar(&o.workers, "workers", 0, "goroutines (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
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
	}
	if _, err := mamba.NewSampler(o.generate.SampleConfig); err != nil {
		return err
	}
	m, err := openModel(o)
	if err != nil {
		return err
	}
	words, err := openVocabulary(o.weights, m)
	if err != nil {
		return err
	}
	if o.score != "" {
		text, err := os.ReadFile(o.score)
		if err != nil {
			return err
		}
		bits, n, err := score(ctx, m, words, string(text), o.window, program.NewProgress(stderr, "tokens"))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%.5f bits per token, %d tokens in windows of %d\n", bits, n, o.window)
		return err
	}
	if o.weights != "" && !o.endless {
		if o.generate.Stop, err = stopTokens(o.weights, words); err != nil {
			return err
		}
	}
	return generate(ctx, m, words, o, stdout, stderr)
}

func openModel(o options) (*mamba.Model, error) {
	cfg := mamba.Config{}
	switch o.format {
	case "float32":
	case "bfloat16":
		cfg.Format = asm.BFloat16
	case "float16":
		cfg.Format = asm.Float16
	case "int8":
		cfg.Format = asm.Int8
	default:
		return nil, fmt.Errorf("-format is %q, want float32, bfloat16, float16 or int8", o.format)
	}
	if o.weights != "" {
		cfg.Workers = o.workers
		return mamba.Open(o.weights, cfg)
	}
	built, err := mamba.ParseConfig(config)
	if err != nil {
		return nil, err
	}
	built.Format, built.Workers = cfg.Format, o.workers
	return mamba.Read(bytes.NewReader(weights), int64(len(weights)), built)
}

// generate prints the prompt and what the model makes of it.
func generate(ctx context.Context, m *mamba.Model, words vocabulary, o options, stdout, stderr io.Writer) error {
	prompt, err := words.encode(o.prompt)
	if err != nil {
		return err
	}
	st, err := m.NewState(ssm.StateConfig{})
	if err != nil {
		return err
	}
	all, shown := append([]int32{}, prompt...), 0
	show := func(end bool) error {
		text := words.decode(all)
		if !end && !words.whole(text) {
			return nil // part of a letter
		}
		_, err := io.WriteString(stdout, text[min(shown, len(text)):])
		shown = len(text)
		return err
	}
	start := time.Now()
	begin := start // of the tokens after the first, which the prompt's time is in
	for token, err := range m.Generate(ctx, prompt, st, o.generate) {
		if err != nil {
			return err
		}
		if len(all) == len(prompt) {
			begin = time.Now()
			if err := show(false); err != nil { // the prompt, now that nothing is wrong with it
				return err
			}
		}
		all = append(all, token)
		if err := show(false); err != nil {
			return err
		}
	}
	if err := show(true); err != nil {
		return err
	}
	n := len(all) - len(prompt)
	if n == 0 {
		begin = time.Now()
	}
	end := ""
	if n < o.generate.MaxTokens {
		end = fmt.Sprintf("the text ended after %d tokens (-endless goes on)\n", n)
	}
	_, err = fmt.Fprintf(stderr, "\n\n%sprompt: %d tokens in %v; then %.0f tokens/s\nweights: %s as %s; state: %s, whatever the length\n",
		end, len(prompt), begin.Sub(start).Round(time.Microsecond), float64(max(n-1, 0))/max(time.Since(begin).Seconds(), 1e-9),
		size(m.Bytes()), o.format, size(int64(st.Bytes())))
	return err
}

func size(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
