package mamba_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/subquad/subquad/ssm/mamba"
)

// A config.json tells the size of a model before its weights are read.
func ExampleParseConfig() {
	cfg, err := mamba.ParseConfig([]byte(`{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "pad_vocab_size_multiple": 8}`))
	if err != nil {
		panic(err)
	}
	fmt.Println(cfg.Dim, "wide,", cfg.Layers, "layers")
	// Output: 768 wide, 24 layers
}

// A checkpoint from anywhere that can be read at any place: here from memory, as one
// embedded in a program is. There is no config.json beside it to tell the states.
func ExampleRead() {
	file, err := os.ReadFile(filepath.Join("..", "..", "examples", "generate", "model", "model.safetensors"))
	if err != nil {
		panic(err)
	}
	m, err := mamba.Read(bytes.NewReader(file), int64(len(file)), mamba.Config{States: 32})
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Config().Layers, "layers")
	// Output: 4 layers
}
