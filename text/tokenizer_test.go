package text

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// stories is the folder of a small model with a tokenizer of llama2.c's kind.
const stories = "../testdata/golden/transformer_stories260K/"

func put(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// TestOpen finds tokenizers by their name, in folders, and beside checkpoints.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	scored, err := os.ReadFile(stories + "tok512.bin")
	must(t, err)
	size := func(path string) int {
		t.Helper()
		tok, err := Open(path)
		must(t, err)
		return tok.Size()
	}
	if _, err := Open(dir); !errors.Is(err, subquad.ErrCheckpoint) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	put(t, filepath.Join(dir, "tok.bin"), string(scored))
	if n := size(dir); n != 512 {
		t.Errorf("the only tok*.bin has %d tokens", n)
	}
	put(t, filepath.Join(dir, "tok2.bin"), "x")
	if _, err := Open(dir); !errors.Is(err, subquad.ErrCheckpoint) || !strings.Contains(err.Error(), "tok.bin and tok2.bin") {
		t.Errorf("error %v", err)
	}
	put(t, filepath.Join(dir, "tokenizer.json"), file("<s>"))
	put(t, filepath.Join(dir, "model.safetensors"), "")
	for _, path := range []string{dir, filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "tokenizer.json"), filepath.Join(dir, "model.safetensors.index.json")} {
		if n := size(path); n != 301 {
			t.Errorf("%s: %d tokens", path, n)
		}
	}
	if n := size(stories); n != 512 {
		t.Errorf("%d tokens", n)
	}
	for _, bad := range []string{"none.json", "tok2.bin"} {
		if _, err := Open(filepath.Join(dir, bad)); err == nil || !strings.HasPrefix(err.Error(), "text: ") {
			t.Errorf("%s: error %v", bad, err)
		}
	}
	if _, err := Parse(nil); !errors.Is(err, subquad.ErrCheckpoint) {
		t.Errorf("error %v", err)
	}
}

// TestTokenByToken: the text of tokens one by one is what Decode gives, for each kind.
func TestTokenByToken(t *testing.T) {
	scored, err := Open(stories)
	must(t, err)
	const sample = "Once upon a time, é€🙂 <s> \xff\n"
	for name, tok := range map[string]*Tokenizer{"json": words(t, "<s>"), "scored": scored, "bytes": Bytes()} {
		for _, begin := range []bool{false, true} {
			ids, err := tok.Encode(sample, begin)
			must(t, err)
			var got []byte
			before := int32(-1)
			for _, id := range ids {
				got, before = tok.AppendText(got, before, id), id
			}
			want := sample
			if !begin && name == "scored" {
				want = " " + sample // a blank is put before every text
			}
			if string(got) != want || tok.Decode(ids) != want {
				t.Errorf("%s, %v: %q token by token, %q at once, want %q", name, begin, got, tok.Decode(ids), want)
			}
			if n := tok.Size(); slices.Max(ids) >= int32(n) {
				t.Errorf("%s: token %d of %d", name, slices.Max(ids), n)
			}
		}
		if got := tok.AppendText([]byte("x"), 5, 1<<30); string(got) != "x" || tok.Decode([]int32{-5}) != "" {
			t.Errorf("%s: no token is %q", name, got)
		}
	}
	if got := words(t, "<s>").Missing(303); len(got) != 300-256+2 || got[0] != 256 || got[44] != 301 {
		t.Errorf("missing %v", got)
	}
	if got := Bytes().Missing(258); !slices.Equal(got, []int32{256, 257}) || Bytes().Missing(-1) != nil {
		t.Errorf("missing %v", got)
	}
	if _, err := (*Tokenizer)(nil).Encode("", false); !errors.Is(err, subquad.ErrCall) {
		t.Errorf("error %v", err)
	}
	if _, ok := Bytes().Lookup("<s>"); ok {
		t.Error("a byte has a name")
	}
}

// TestEnds reads the tokens that end a text from the files of a checkpoint.
func TestEnds(t *testing.T) {
	dir := t.TempDir()
	tok := words(t, "<|im_start|>", "<|im_end|>")
	check := func(want []int32, tok *Tokenizer) {
		t.Helper()
		if got, err := Ends(dir, tok); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, want %v; error %v", got, want, err)
		}
	}
	check([]int32{301}, tok) // by its name
	check(nil, nil)
	scored, err := Open(stories)
	must(t, err)
	check([]int32{1, 2}, scored)
	put(t, filepath.Join(dir, "config.json"), `{"eos_token_id": 7, "x": NaN}`)
	check([]int32{7}, tok)
	check([]int32{7}, nil)
	put(t, filepath.Join(dir, "generation_config.json"), `{"eos_token_id": [9, 3]}`)
	put(t, filepath.Join(dir, "special_tokens_map.json"), `{"eos_token": {"content": "<|im_end|>"}}`)
	put(t, filepath.Join(dir, "tokenizer_config.json"), `{"eos_token": null}`)
	check([]int32{3, 7, 9, 301}, tok)
	put(t, filepath.Join(dir, "generation_config.json"), `{"eos_token_id": "x"}`)
	if _, err := Ends(dir, tok); !errors.Is(err, subquad.ErrCheckpoint) || !strings.Contains(err.Error(), "generation_config.json: eos_token_id: ") {
		t.Errorf("error %v", err)
	}
}

// TestOpenTemplate reads templates from the files that have them.
func TestOpenTemplate(t *testing.T) {
	dir := t.TempDir()
	tok := words(t, "<s>", "<|im_start|>", "<|im_end|>", "</s>")
	apply := func(want []int32, ends ...int32) {
		t.Helper()
		f, err := OpenTemplate(dir, tok, TemplateConfig{})
		must(t, err)
		got, err := f.Apply([]Message{{User, "x"}}, false)
		if len(got) < 2 || err != nil || !slices.Equal(got[:2], want) || !slices.Equal(f.Ends(), ends) {
			t.Errorf("%v, want %v…; error %v; ends %v, want %v", got, want, err, f.Ends(), ends)
		}
	}
	chat, bos := templates[0].text, "{{ bos_token }}"+templates[0].text
	quoted := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
	}
	if _, err := OpenTemplate(dir, tok, TemplateConfig{}); !errors.Is(err, subquad.ErrCheckpoint) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	put(t, filepath.Join(dir, "chat_template.json"), `{"chat_template": `+quoted(chat)+`}`)
	apply([]int32{301, 'u'}, 302)
	put(t, filepath.Join(dir, "tokenizer_config.json"), `{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": `+quoted(bos)+`}]}`)
	apply([]int32{300, 301}, 302, 303)
	put(t, filepath.Join(dir, "tokenizer_config.json"), `{"bos_token": "<s>", "eos_token": null, "chat_template": `+quoted(chat)+`}`)
	apply([]int32{301, 'u'}, 302)
	put(t, filepath.Join(dir, "chat_template.jinja"), bos)
	apply([]int32{300, 301}, 302)
	put(t, filepath.Join(dir, "chat_template.jinja"), "{{ messages }}")
	if _, err := OpenTemplate(dir, tok, TemplateConfig{}); !errors.Is(err, subquad.ErrCheckpoint) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, "chat_template.jinja")))
	for _, bad := range []string{`{"chat_template": 5}`, `{"chat_template": [{"name": "rag", "template": "x"}]}`, `{`} {
		put(t, filepath.Join(dir, "tokenizer_config.json"), bad)
		if _, err := OpenTemplate(dir, tok, TemplateConfig{}); !errors.Is(err, subquad.ErrCheckpoint) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
	for _, none := range []*Tokenizer{nil, Bytes()} {
		if _, err := ParseTemplate(chat, none, TemplateConfig{}); !errors.Is(err, subquad.ErrCall) {
			t.Errorf("error %v", err)
		}
	}
	if _, err := ParseTemplate(chat, tok, TemplateConfig{Reasoning: "much"}); !errors.Is(err, subquad.ErrConfig) {
		t.Errorf("error %v", err)
	}
}
