package language

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRoomOf tells by a config.json, or a file's name, which package runs a checkpoint.
func TestRoomOf(t *testing.T) {
	for config, want := range map[string]string{
		`{"model_type": "llama"}`:                                    "transformer",
		`{"model_type": "gemma3", "text_config": {"x": NaN}}`:        "transformer",
		`{"model_type": "granitemoehybrid"}`:                         "transformer",
		`{"model_type": "falcon_mamba"}`:                             "mamba",
		`{"d_model": 768, "n_layer": 24, "ssm_cfg": {}}`:             "mamba",
		`{"d_model": 128, "layer": {"_name_": "hyena", "l_max": 9}}`: "dna",
		`{"model_type": "hyenadna"}`:                                 "dna",
		`{"model_type": "rwkv7"}`:                                    "rwkv",
		`{"model_type": "stripedhyena"}`:                             "striped",
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "model.safetensors")
		for name, text := range map[string]string{"config.json": config, "model.safetensors": ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{dir, file} {
			if got, err := roomOf(path); err != nil || got != want {
				t.Errorf("%s: %s, want %s; error %v", config, got, want, err)
			}
		}
	}
	dir := t.TempDir()
	for name, want := range map[string]string{"stories.bin": "transformer", "RWKV.pth": "rwkv", "pytorch_model.bin": "mamba"} {
		if got, err := roomOf(filepath.Join(dir, name)); err != nil || got != want {
			t.Errorf("%s: %s, want %s; error %v", name, got, want, err)
		}
	}
}
