//go:build !js

package main

import (
	"fmt"
	"os"
)

// main tells whoever runs it elsewhere that it is for the page.
func main() {
	fmt.Fprintln(os.Stderr, "wasm: this program runs in a browser: go run ./examples/browser builds its page")
	os.Exit(1)
}
