// Package language opens language models of every room, for the examples: a transformer, a
// Mamba, an RWKV-7 or a HyenaDNA, by what its config.json says, with what turns text into its tokens. It
// uses nothing that a program of another module could not.
package language

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/hyena/dna"
	"github.com/subquad/subquad/hyena/striped"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/mamba"
	"github.com/subquad/subquad/ssm/rwkv"
	"github.com/subquad/subquad/text"
)

//go:embed stories260K
var stories embed.FS

// Options say how a model is opened.
type Options struct {
	// Format is the type of weights in memory: float32, bfloat16, float16 or int8.
	Format  string
	Workers int // goroutines, 0 for one for each processor
}

// Model is a language model with its words.
type Model struct {
	Words Vocabulary
	// Stop are the tokens that end a text.
	Stop []int32
	// Room is the package that runs the model.
	Room string

	path string
	// One of these is the model. The first two remember texts in states of the same type.
	streamer streamer
	bases    *dna.Model
}

// streamer is what transformer.Model, mamba.Model and rwkv.Model have in common.
type streamer interface {
	Stream(ctx context.Context, prompt []int32, st *transformer.State, cfg transformer.GenerateConfig) iter.Seq2[transformer.Piece, error]
	Bytes() int64
}

// keeper is one that keeps prefixes of texts and takes several texts through together, which
// models of striped do not.
type keeper interface {
	NewPrefixes(cfg transformer.PrefixConfig) (*transformer.Prefixes, error)
	ReadPrefixes(r io.Reader, cfg transformer.PrefixConfig) (*transformer.Prefixes, error)
	NewBatch(most int) (*transformer.Batch, error)
}

// ErrNoState is that of a model whose state is its own affair.
var ErrNoState = errors.New("the model keeps its state itself")

// format returns the format of a name.
func (o *Options) format() (asm.Format, error) {
	for name, format := range map[string]asm.Format{"": asm.Float32, "float32": asm.Float32, "bfloat16": asm.BFloat16, "float16": asm.Float16, "int8": asm.Int8} {
		if name == o.Format {
			return format, nil
		}
	}
	return 0, fmt.Errorf("-format is %q, want float32, bfloat16, float16 or int8", o.Format)
}

// Stories returns the model of children's stories that is built in.
func Stories(o Options) (*Model, error) {
	read := func(name string) []byte {
		data, err := stories.ReadFile("stories260K/" + name)
		if err != nil {
			panic(err) // it is built in
		}
		return data
	}
	format, err := o.format()
	if err != nil {
		return nil, err
	}
	weights := read("model.safetensors")
	m, err := transformer.Read(bytes.NewReader(weights), int64(len(weights)), read("config.json"), transformer.Config{Format: format, Workers: o.Workers})
	if err != nil {
		return nil, err
	}
	words, err := text.Parse(read("tokenizer.bin"))
	if err != nil {
		return nil, err
	}
	return &Model{Words: tokenizer{words}, Stop: []int32{1, 2}, Room: "transformer", streamer: m}, nil
}

// OfBytes returns a Mamba of bytes from its file and config.json.
func OfBytes(weights, config []byte, o Options) (*Model, error) {
	format, err := o.format()
	if err != nil {
		return nil, err
	}
	cfg, err := mamba.ParseConfig(config)
	if err != nil {
		return nil, err
	}
	cfg.Format, cfg.Workers = format, o.Workers
	m, err := mamba.Read(bytes.NewReader(weights), int64(len(weights)), cfg)
	if err != nil {
		return nil, err
	}
	return &Model{Words: tokenizer{text.Bytes()}, Room: "mamba", streamer: m}, nil
}

// Open returns the model of a checkpoint: a folder, one of its files, or a file of llama2.c.
func Open(path string, o Options) (*Model, error) {
	format, err := o.format()
	if err != nil {
		return nil, err
	}
	switch _, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file or folder %s: download a checkpoint first, as hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir SmolLM2-135M-Instruct does", path)
	case err != nil:
		return nil, err
	}
	m := &Model{path: path}
	if m.Room, err = roomOf(path); err != nil {
		return nil, err
	}
	rows := 0 // of the vocabulary
	switch m.Room {
	case "dna":
		if m.bases, err = dna.Open(path, dna.Config{Format: format, Workers: o.Workers}); err != nil {
			return nil, err
		}
		m.Words = letters{m.bases.Tokenizer(dna.NoSpecial)}
		for _, end := range []string{"[SEP]", "<eos>"} {
			if id, ok := m.bases.Vocabulary().Lookup(end); ok {
				m.Stop = append(m.Stop, id)
			}
		}
		return m, nil
	case "mamba":
		model, err := mamba.Open(path, mamba.Config{Format: format, Workers: o.Workers})
		if err != nil {
			return nil, err
		}
		m.streamer, rows = model, model.Config().Words
	case "striped":
		model, err := striped.Open(path, striped.Config{Format: format, Workers: o.Workers})
		if err != nil {
			return nil, err
		}
		if m.streamer, rows = model, model.Config().Vocab; rows == 512 {
			rows = 256 // Evo's: bytes, and some that end a text
		}
	case "rwkv":
		model, err := rwkv.Open(path, rwkv.Config{Format: format, Workers: o.Workers})
		if err != nil {
			return nil, err
		}
		m.streamer, rows = model, model.Config().Vocab
		lists, err := filepath.Glob(filepath.Join(folderOf(path), "rwkv_vocab*.txt"))
		if err != nil || len(lists) == 0 {
			break
		}
		own, err := rwkv.OpenVocabulary(lists[0])
		if err != nil {
			return nil, err
		}
		m.Words, m.Stop = own, []int32{0}
		return m, nil
	default:
		model, err := transformer.Open(path, transformer.Config{Format: format, Workers: o.Workers})
		if err != nil {
			return nil, err
		}
		m.streamer, rows, m.Stop = model, model.Shape().Vocab, model.Shape().EOS
	}
	words, err := text.Open(path)
	switch {
	case err == nil:
		m.Words = tokenizer{words}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case rows == 256:
		words = text.Bytes()
		m.Words = tokenizer{words}
	default:
		m.Words = numbers{rows}
	}
	ends, err := text.Ends(path, words)
	if err != nil {
		return nil, err
	}
	m.Stop = slices.Concat(m.Stop, ends)
	return m, nil
}

var modelType = regexp.MustCompile(`"model_type"\s*:\s*"([^"]*)"`)

// folderOf returns the folder of a checkpoint.
func folderOf(path string) string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return filepath.Dir(path)
	}
	return path
}

// beginsWith tells whether a file does.
func beginsWith(path, magic string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	first := make([]byte, len(magic))
	_, err = io.ReadFull(f, first)
	return err == nil && string(first) == magic
}

// roomOf tells which package runs a checkpoint, by its config.json. Without one a file *.bin is
// llama2.c's or rwkv.cpp's, a file *.pth RWKV's, and another HyenaDNA's, whose files tell all by
// themselves.
func roomOf(path string) (string, error) {
	config, err := os.ReadFile(filepath.Join(folderOf(path), "config.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && (filepath.Ext(path) == ".pth" || beginsWith(path, "fmgg")):
		return "rwkv", nil
	case errors.Is(err, fs.ErrNotExist) && filepath.Ext(path) == ".bin" && !strings.HasPrefix(filepath.Base(path), "pytorch_model"):
		return "transformer", nil
	case errors.Is(err, fs.ErrNotExist):
		if _, err := dna.Open(path, dna.Config{}); err == nil {
			return "dna", nil
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return "", fmt.Errorf("%s has no config.json: want the whole folder of a checkpoint, as the Hugging Face hub has it", path)
		}
		return "mamba", nil
	case err != nil:
		return "", err
	}
	if m := modelType.FindSubmatch(config); m != nil {
		switch kind := string(m[1]); {
		case strings.HasPrefix(kind, "hyena"):
			return "dna", nil
		case slices.Contains([]string{"mamba", "mamba2", "falcon_mamba", "mamba_ssm"}, kind):
			return "mamba", nil
		case strings.HasPrefix(kind, "rwkv7"):
			return "rwkv", nil
		case strings.HasPrefix(kind, "stripedhyena"):
			return "striped", nil
		}
		return "transformer", nil
	}
	for _, key := range []string{`"hyena"`, `"l_max"`} {
		if bytes.Contains(config, []byte(key)) {
			return "dna", nil
		}
	}
	return "mamba", nil // the original's files have no model_type
}

// Name is that of the checkpoint's folder or file.
func (m *Model) Name() string {
	if m.path == "" {
		return "built-in"
	}
	return filepath.Base(m.path)
}

// Bytes is the memory of the weights.
func (m *Model) Bytes() int64 {
	if m.bases != nil {
		return m.bases.Bytes()
	}
	return m.streamer.Bytes()
}

// NewState returns an empty state, or ErrNoState.
func (m *Model) NewState() (*transformer.State, error) {
	switch model := m.streamer.(type) {
	case *transformer.Model:
		return model.NewState(transformer.StateConfig{})
	case *mamba.Model:
		return model.NewState(ssm.StateConfig{})
	case *rwkv.Model:
		return model.NewState(rwkv.StateConfig{})
	case *striped.Model:
		return model.NewState(striped.StateConfig{})
	}
	return nil, ErrNoState
}

// NewPrefixes returns a cache of prefixes of that many bytes, or ErrNoState.
func (m *Model) NewPrefixes(most int64) (*transformer.Prefixes, error) {
	k, ok := m.streamer.(keeper)
	if !ok {
		return nil, ErrNoState
	}
	return k.NewPrefixes(transformer.PrefixConfig{MaxBytes: most})
}

// ReadPrefixes reads what the model's prefixes were stored as, and keeps as much of them.
func (m *Model) ReadPrefixes(r io.Reader, most int64) (*transformer.Prefixes, error) {
	k, ok := m.streamer.(keeper)
	if !ok {
		return nil, ErrNoState
	}
	return k.ReadPrefixes(r, transformer.PrefixConfig{MaxBytes: most})
}

// NewBatch returns what takes texts that are generated at once through the model together, or
// ErrNoState.
func (m *Model) NewBatch(most int) (*transformer.Batch, error) {
	k, ok := m.streamer.(keeper)
	if !ok {
		return nil, ErrNoState
	}
	return k.NewBatch(most)
}

// Prefill returns a state that has seen all of some tokens but the last, of which known were not
// computed again, and keeps what it has come to.
func Prefill(ctx context.Context, p *transformer.Prefixes, tokens []int32) (st *transformer.State, known int, err error) {
	last := len(tokens) - 1
	// Lookup finds a state of all but the last token, and Prefill of these would not: it
	// computes the last of what it is given.
	if st, known, err = p.Lookup(tokens); err != nil || known == last {
		return st, known, err
	}
	return p.Prefill(ctx, tokens[:last], blas32.General{})
}

// errNoTemplate is that of a model that is built in, or has no tokenizer.
var errNoTemplate = errors.New("the model has no chat template: conversations need a checkpoint that was trained for them, an Instruct one, with its tokenizer.json")

// Template returns the checkpoint's chat template.
func (m *Model) Template(cfg text.TemplateConfig) (*text.Template, error) {
	words, ok := m.Words.(tokenizer)
	if !ok || m.path == "" {
		return nil, errNoTemplate
	}
	return text.OpenTemplate(m.path, words.Tokenizer, cfg)
}

// Stream continues a prompt. st is nil where NewState gives none, and a new one is taken.
func (m *Model) Stream(ctx context.Context, prompt []int32, st *transformer.State, cfg transformer.GenerateConfig) iter.Seq2[transformer.Piece, error] {
	if m.bases != nil {
		return func(yield func(transformer.Piece, error) bool) {
			st, err := m.bases.NewState(dna.StateConfig{})
			if err != nil {
				yield(transformer.Piece{Token: -1}, err)
				return
			}
			m.bases.Stream(ctx, prompt, st, cfg)(yield)
		}
	}
	return m.streamer.Stream(ctx, prompt, st, cfg)
}

// LogLikelihood sets dst to the natural logarithms of the probabilities of targets, each after
// the token of the same place and those before it.
func (m *Model) LogLikelihood(ctx context.Context, dst []float32, tokens, targets []int32) error {
	switch model := m.streamer.(type) {
	case *transformer.Model:
		return model.Run(ctx, &transformer.Call{Tokens: tokens, Targets: targets, LogLikelihood: dst})
	case *mamba.Model:
		return model.Run(ctx, &mamba.Call{Tokens: tokens, Targets: targets, LogLikelihood: dst})
	case *striped.Model:
		return model.Run(ctx, &striped.Call{Tokens: tokens, Targets: targets, LogLikelihood: dst})
	case *rwkv.Model:
		return model.Run(ctx, &rwkv.Call{Tokens: tokens, Targets: targets, LogLikelihood: dst})
	}
	return m.bases.Run(ctx, &dna.Call{Tokens: tokens, Targets: targets, LogLikelihood: dst})
}
