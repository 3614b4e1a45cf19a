package dna_test

import (
	"bytes"
	"fmt"
	"log"
	"os"

	"github.com/subquad/subquad/hyena/dna"
)

// A config.json tells the size of a model before its weights are read.
func ExampleParseConfig() {
	cfg, err := dna.ParseConfig([]byte(`{"d_model": 128, "n_layer": 2, "d_inner": 512, "vocab_size": 12, "layer": {"l_max": 1026}}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.Dim, "wide,", cfg.Layers, "layers,", cfg.MaxLen, "tokens")
	// Output: 128 wide, 2 layers, 1026 tokens
}

// A checkpoint from anywhere that can be read at any place: here from memory, as one
// embedded in a program is.
func ExampleRead() {
	file, err := os.ReadFile(checkpoint)
	if err != nil {
		log.Fatal(err)
	}
	m, err := dna.Read(bytes.NewReader(file), int64(len(file)), dna.Config{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Config().Dim)
	// Output: 32
}
