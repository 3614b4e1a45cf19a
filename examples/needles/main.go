// Command needles compares policies for long pasts on a trained model.
package main

import _ "embed"

//go:embed model/model.safetensors
var checkpoint []byte

//go:embed model/config.json
var config []byte

func main() {}
