package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/language/languagetest"
	"github.com/subquad/subquad/examples/internal/program"
	"github.com/subquad/subquad/examples/internal/program/programtest"
	"github.com/subquad/subquad/internal/isa/isatest"
	safetensors "github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm/mamba"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expected(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile("testdata/expected.json")
	must(t, err)
	var v map[string]any
	must(t, json.Unmarshal(text, &v))
	return v
}

func builtIn(t *testing.T, format string) *language.Model {
	t.Helper()
	m, err := language.OfBytes(weights, config, language.Options{Format: format})
	must(t, err)
	return m
}

// TestBits compares the bits per byte of text the model has not seen with those of
// the official code.
func TestBits(t *testing.T) {
	want := expected(t)
	isatest.Run(t, func(t *testing.T) {
		windows := map[int]string{512: "first 65536 held-out bytes, windows of 512", 4096: "first 65536 held-out bytes, windows of 4096", 65536: "first 65536 held-out bytes, windows of 65536"}
		text, err := os.ReadFile("testdata/heldout.txt")
		must(t, err)
		for window, key := range windows {
			if asm.Active() == "generic" || testing.Short() && window != 4096 {
				t.Log("left out, for it takes long: windows of", window)
				continue
			}
			got, _, err := score(t.Context(), builtIn(t, "float32"), string(text), window, new(program.Progress))
			must(t, err)
			if w := want[key].(float64); !(math.Abs(got-w) < 1e-3) {
				t.Errorf("windows of %d: %.5f bits per byte, want %.5f", window, got, w)
			}
		}
	})
}

// TestLogits compares with the official code's, in float64.
func TestLogits(t *testing.T) {
	f, err := safetensors.Open("testdata/expected.safetensors")
	must(t, err)
	defer f.Close()
	text, err := os.ReadFile("testdata/heldout.txt")
	must(t, err)
	isatest.Run(t, func(t *testing.T) {
		cfg, err := mamba.ParseConfig(config)
		must(t, err)
		m, err := mamba.Read(bytes.NewReader(weights), int64(len(weights)), cfg)
		must(t, err)
		for _, name := range f.Names() {
			want, err := f.Tensor(name).Float64()
			if err != nil {
				continue // the bytes
			}
			v := m.Config().Vocab
			n := len(want) / v
			tokens := make([]int32, n)
			for i := range tokens {
				tokens[i] = int32(text[i])
			}
			logits := blas32.General{Rows: n, Cols: v, Stride: v, Data: make([]float32, n*v)}
			must(t, m.Forward(logits, tokens))
			for i, w := range want {
				if d := math.Abs(float64(logits.Data[i]) - w); !(d <= 2e-3) {
					t.Fatalf("%s: element %d is %v, want %v", name, i, logits.Data[i], w)
				}
			}
		}
	})
}

// TestGreedy takes the likeliest tokens: the text the official code writes.
func TestGreedy(t *testing.T) {
	want := expected(t)[`greedy continuation of "In the beginning ", 300 bytes`].(string)
	isatest.Run(t, func(t *testing.T) {
		var out, report bytes.Buffer
		must(t, command(t.Context(), []string{"-weights", "bible", "-greedy"}, &out, &report))
		if got := out.String(); got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
		if !strings.Contains(report.String(), "tokens/s") || !strings.Contains(report.String(), "state: ") {
			t.Errorf("reported %q", report.String())
		}
	})
}

// TestFormats: rounded weights write much the same.
func TestFormats(t *testing.T) {
	text, err := os.ReadFile("testdata/heldout.txt")
	must(t, err)
	for format, tol := range map[string]float64{"bfloat16": 0.01, "float16": 0.002, "int8": 0.03} {
		got, _, err := score(t.Context(), builtIn(t, format), string(text[:4096]), 4096, new(program.Progress))
		must(t, err)
		exact, _, err := score(t.Context(), builtIn(t, "float32"), string(text[:4096]), 4096, new(program.Progress))
		must(t, err)
		if !(math.Abs(got-exact) < tol) {
			t.Errorf("%s: %.5f bits per byte, %.5f with float32", format, got, exact)
		}
	}
}

// TestStory: the built-in story is the one that llama2.c tells, and without -weights both
// models write.
func TestStory(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		var out strings.Builder
		must(t, command(t.Context(), []string{"-weights", "stories", "-greedy", "-n", "20"}, &out, io.Discard))
		if want := "Once upon a time, there was a little girl named Lily. She loved to play outside in the park"; !strings.HasPrefix(want, out.String()) || len(out.String()) < 40 {
			t.Errorf("wrote %q", out.String())
		}
	})
	var out, report strings.Builder
	must(t, command(t.Context(), []string{"-n", "10"}, &out, &report))
	if !strings.HasPrefix(out.String(), "Once upon a time") || !strings.Contains(out.String(), "\n\nIn the beginning ") || strings.Count(report.String(), "tokens/s") != 2 {
		t.Errorf("wrote %q, reported %q", out.String(), report.String())
	}
}

// TestWeights runs a checkpoint from a file, by token ids and by a tokenizer.json.
func TestWeights(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	must(t, os.WriteFile(path, weights, 0o600))
	text := strings.Replace(string(config), `"vocab_size": 256`, `"vocab_size": 255`, 1)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600))
	var ids, bytes bytes.Buffer
	must(t, command(t.Context(), []string{"-weights", path, "-prompt", "73, 110", "-n", "3", "-greedy"}, &ids, io.Discard))
	must(t, command(t.Context(), []string{"-weights", "bible", "-prompt", "In", "-n", "3", "-temperature", "0"}, &bytes, io.Discard))
	if got, want := ids.String(), fmt.Sprintf("73 110 %d %d %d ", bytes.Bytes()[2], bytes.Bytes()[3], bytes.Bytes()[4]); got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
	must(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(`{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
		"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
		"model":{"type":"WordLevel","vocab":{"[UNK]":0,"In":73,"the":110,"beginning":97},"unk_token":"[UNK]"}}`), 0o600))
	var out strings.Builder
	must(t, command(t.Context(), []string{"-weights", path, "-prompt", "In the", "-n", "1"}, &out, io.Discard))
	if !strings.HasPrefix(out.String(), "In the") {
		t.Errorf("wrote %q", out.String())
	}
}

// TestOptions: every flag of the sampler does something, and texts of -stop are cut off.
func TestOptions(t *testing.T) {
	write := func(args ...string) (string, string) {
		t.Helper()
		var out, report strings.Builder
		must(t, command(t.Context(), append([]string{"-weights", "stories", "-n", "60"}, args...), &out, &report))
		return out.String(), report.String()
	}
	plain, _ := write("-temperature", "1.5")
	for _, args := range [][]string{{"-top-k", "3"}, {"-top-p", "0.5"}, {"-min-p", "0.3"}, {"-repetition-penalty", "5"}, {"-seed", "9"}} {
		if got, _ := write(append(args, "-temperature", "1.5")...); got == plain {
			t.Errorf("%v changes nothing", args)
		}
	}
	greedy, _ := write("-greedy")
	before, _, _ := strings.Cut(greedy, " girl")
	got, report := write("-greedy", "-stop", "no such", "-stop", " girl", "-logprobs")
	if got != before || !strings.Contains(report, "a text of -stop came after ") || !strings.Contains(report, `" little"`) {
		t.Errorf("wrote %q, want %q; reported %q", got, before, report)
	}
}

// TestTemperature: without flags the text does not go in circles.
func TestTemperature(t *testing.T) {
	var out, again, other strings.Builder
	must(t, command(t.Context(), []string{"-weights", "bible"}, &out, io.Discard))
	must(t, command(t.Context(), []string{"-weights", "bible", "-temperature", "0.8", "-seed", "1"}, &again, io.Discard))
	must(t, command(t.Context(), []string{"-weights", "bible", "-seed", "2"}, &other, io.Discard))
	if out.String() != again.String() || out.String() == other.String() || strings.Count(out.String(), "the children of Israel") > 3 {
		t.Errorf("wrote %q, %q and %q", out.String(), again.String(), other.String())
	}
}

// TestLong: a text goes on beyond what is seen of it, in memory that does not grow, or by groups.
func TestLong(t *testing.T) {
	for _, args := range [][]string{{}, {"-extend", "2"}} {
		var out, errs bytes.Buffer
		must(t, command(t.Context(), append([]string{"-recent", "40", "-n", "120", "-endless", "-greedy"}, args...), &out, &errs))
		if !strings.HasPrefix(out.String(), "Once upon a time, there was a little girl named Lily") || out.Len() < 250 {
			t.Errorf("%v: %q", args, out.String())
		}
	}
	for _, args := range [][]string{{"-extend", "2"}, {"-recent", "-1"}, {"-recent", "9", "-bytes"}, {"-weights", "bible", "-recent", "9"}} {
		if err := command(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// TestLongChat: a conversation goes on beyond what is seen of it; where all is seen it is the one
// that it is without.
func TestLongChat(t *testing.T) {
	dir, write := languagetest.Folder(t, "../internal/language/stories260K")
	write("chat_template.jinja", languagetest.ChatML)
	defer func() { stdin = os.Stdin }()
	run := func(args ...string) string {
		t.Helper()
		stdin = strings.NewReader("Once\nupon\na time\n")
		var out strings.Builder
		must(t, command(t.Context(), append([]string{"-weights", dir, "-chat", "-n", "20", "-temperature", "3"}, args...), &out, io.Discard))
		return out.String()
	}
	want := run()
	for _, args := range [][]string{{"-recent", "1000"}, {"-recent", "1000", "-extend", "2"}} {
		if got := run(args...); got != want {
			t.Errorf("%v: %q, want %q", args, got, want)
		}
	}
	if got := run("-recent", "12"); len(got) < 10 || got == want {
		t.Errorf("%q", got)
	}
}

// TestEnd passes added tokens both ways, and stops where the checkpoint says.
func TestEnd(t *testing.T) {
	dir, write := languagetest.Folder(t, "model")
	m, err := language.Open(dir, language.Options{})
	must(t, err)
	prompt := "<|im_start|>user\ndef f(x):\n    return x<|im_end|>\n"
	ids, err := m.Words.Encode(prompt)
	must(t, err)
	if want := len(prompt) - len("<|im_start|><|im_end|>    ") + 3; len(ids) != want || ids[0] != 250 || language.Decode(m.Words, ids) != prompt {
		t.Errorf("%v is %q, want %d tokens", ids, language.Decode(m.Words, ids), want)
	}
	if !slices.Equal(m.Stop, []int32{251}) {
		t.Errorf("stops %v", m.Stop)
	}
	write("generation_config.json", `{"eos_token_id": [104, 7]}`)
	var out, report, endless strings.Builder
	must(t, command(t.Context(), []string{"-weights", dir, "-prompt", "In t", "-greedy"}, &out, &report)) // "h" ends the text
	if out.String() != "In t" || !strings.Contains(report.String(), "the text ended after 0 tokens (-endless goes on)") {
		t.Errorf("wrote %q, reported %q", out.String(), report.String())
	}
	must(t, command(t.Context(), []string{"-weights", dir, "-prompt", "In t", "-greedy", "-endless", "-n", "5"}, &endless, io.Discard))
	if len(endless.String()) != len("In t")+5 || !strings.HasPrefix(endless.String(), "In th") {
		t.Errorf("wrote %q", endless.String())
	}
}

// TestChat: a message is in the checkpoint's template, and lines are a conversation, of which
// each answer is what the model says of the whole.
func TestChat(t *testing.T) {
	dir, write := languagetest.Folder(t, "model")
	args := []string{"-weights", dir, "-chat", "-n", "12", "-greedy"}
	if err := command(t.Context(), append(args, "-prompt", "x"), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "no chat template") {
		t.Errorf("error %v", err)
	}
	write("chat_template.jinja", languagetest.ChatML)
	run := func(args ...string) string {
		t.Helper()
		var out strings.Builder
		must(t, command(t.Context(), args, &out, io.Discard))
		return out.String()
	}
	// By hand, the names of tokens in the text standing for them.
	plain := func(text string) string {
		return strings.TrimPrefix(run("-weights", dir, "-n", "12", "-greedy", "-prompt", text), text)
	}
	const system, open, end, answer = "<|im_start|>system\nBe kind.<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"
	first := plain(system + open + "Who made heaven?" + end + answer)
	if got := run(append(args, "-system", "Be kind.", "-prompt", "Who made heaven?")...); got != first || len(got) < 6 {
		t.Errorf("answered %q, want %q", got, first)
	}
	second := plain(system + open + "Who made heaven?" + end + answer + first + end + open + "And earth?" + end + answer)
	stdin = strings.NewReader("Who made heaven?\nAnd earth?\n")
	defer func() { stdin = os.Stdin }()
	if got, want := run(append(args, "-system", "Be kind.")...), first+"\n\n"+second+"\n\n"; got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
	if testing.Short() {
		return
	}
	stdin = strings.NewReader(strings.Repeat("a", 1<<16) + "\n") // a document in one line
	if got := run(append(args, "-n", "1")...); !strings.HasSuffix(got, "\n\n") {
		t.Errorf("answered %q", got)
	}
}

// TestRooms opens checkpoints of the other rooms by their config.json.
func TestRooms(t *testing.T) {
	for path, want := range map[string]string{
		"../internal/language/stories260K":                              "transformer",
		"../../testdata/golden/transformer_stories260K/stories260K.bin": "transformer",
		"../internal/ecoli/model":                                       "dna",
		"model":                                                         "mamba",
		rwkvFolder(t):                                                   "rwkv",
	} {
		m, err := language.Open(path, language.Options{Format: "bfloat16"})
		must(t, err)
		if m.Room != want {
			t.Errorf("%s is of room %s, want %s", path, m.Room, want)
		}
		var out, report strings.Builder
		must(t, command(t.Context(), []string{"-weights", path, "-n", "8"}, &out, &report))
		if len(out.String()) < 9 || !strings.Contains(report.String(), "tokens/s") || strings.Contains(report.String(), "state: ") != (want != "dna") {
			t.Errorf("%s: wrote %q, reported %q", path, out.String(), report.String())
		}
		if want == "dna" && strings.Trim(out.String(), "ACGTN") != "" {
			t.Errorf("wrote %q", out.String())
		}
	}
}

// rwkvFolder writes a small trained RWKV-7, of bytes, as a folder of the hub.
func rwkvFolder(t *testing.T) string {
	data, err := os.ReadFile("../../testdata/golden/ssm_rwkv7_model_834K.safetensors")
	must(t, err)
	n := binary.LittleEndian.Uint64(data)
	var header, plain map[string]json.RawMessage
	must(t, json.Unmarshal(data[8:8+n], &header))
	plain = map[string]json.RawMessage{}
	for name, value := range header {
		plain[strings.TrimPrefix(name, "param.")] = value
	}
	text, err := json.Marshal(plain)
	must(t, err)
	dir := t.TempDir()
	file := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data[8+n:])
	must(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), file, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "rwkv7"}`), 0o600))
	return dir
}

// TestRWKV writes with an RWKV-7, by bytes and by tokens of its own.
func TestRWKV(t *testing.T) {
	dir := rwkvFolder(t)
	var out strings.Builder
	must(t, command(t.Context(), []string{"-weights", dir, "-greedy", "-prompt", "In the ", "-n", "12"}, &out, io.Discard))
	if !strings.Contains(out.String(), "the the the ") {
		t.Errorf("wrote %q", out.String())
	}
	var words strings.Builder
	for i := range 256 {
		fmt.Fprintf(&words, "%d b'\\x%02x' 1\n", i+1, i) // token 33 is a blank, not 32
	}
	must(t, os.WriteFile(filepath.Join(dir, "rwkv_vocab_v0.txt"), []byte(words.String()), 0o600))
	m, err := language.Open(dir, language.Options{})
	must(t, err)
	if tokens, err := m.Words.Encode(" "); err != nil || len(tokens) != 1 || tokens[0] != 33 || m.Room != "rwkv" {
		t.Errorf("%v of a blank, room %s: %v", tokens, m.Room, err)
	}
}

func TestErrors(t *testing.T) {
	for want, args := range map[string][]string{
		`unexpected argument "x"`:                                  {"x"},
		"-n is 0, want 1 or more":                                  {"-n", "0"},
		"-window is -1, want 1 or more":                            {"-window", "-1"},
		`-format is "f8", want float32, bfloat16, float16 or int8`: {"-format", "f8"},
		"TopP is 2, want 0 to 1":                                   {"-top-p", "2"},
		"Temperature is -1, want a finite number, 0 or more":       {"-temperature", "-1"},
		"a text of 0 tokens, want 2 or more":                       {"-score", os.DevNull},
		"open missing.txt: no such file or directory":              {"-score", "missing.txt"},
		"there is no file or folder missing.safetensors: download": {"-weights", "missing.safetensors"},
		`invalid value "" for flag -stop: want a text`:             {"-stop", ""},
		"-no-thinking are for a conversation: they need -chat":     {"-thinking"},
	} {
		var out strings.Builder
		if err := command(t.Context(), args, &out, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
		if out.Len() > 0 {
			t.Errorf("%q: wrote %q before the error", args, out.String())
		}
	}
}

func TestProgram(t *testing.T) { programtest.Check(t, "generate", command) }
