package maelre_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/subquad/subquad/merge/maelre"
)

// The encoder of examples/classify, from its checkpoint.
func ExampleOpen() {
	path := filepath.Join("..", "..", "examples", "classify", "model", "model.safetensors")
	encoder, err := maelre.Open(path, maelre.Config{Heads: 4, Ratios: []float64{0.5}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(encoder.Bytes() > 0)
	// Output: true
}

// The same from memory, as one embedded in a program is.
func ExampleRead() {
	file, err := os.ReadFile(filepath.Join("..", "..", "examples", "classify", "model", "model.safetensors"))
	if err != nil {
		log.Fatal(err)
	}
	encoder, err := maelre.Read(bytes.NewReader(file), int64(len(file)), maelre.Config{Heads: 4})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(encoder.Bytes() > 0)
	// Output: true
}
