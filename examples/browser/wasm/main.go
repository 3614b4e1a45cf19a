//go:build js && wasm

// Command wasm is what the page's worker runs: it reads a genome and posts what it finds to the
// page, piece by piece. The model and phage lambda are built in.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"syscall/js"

	"github.com/subquad/subquad/examples/browser/internal/track"
	"github.com/subquad/subquad/examples/internal/ecoli"
)

func main() {
	js.Global().Set("readGenome", js.FuncOf(func(_ js.Value, args []js.Value) any {
		file := ecoli.Lambda
		if given := args[0]; given.Truthy() {
			file = make([]byte, given.Length())
			js.CopyBytesToGo(file, given)
		}
		window, mask := args[1].Int(), args[2].Bool()
		go func() { // as a function that JavaScript waits for may not block
			if err := read(file, window, mask); err != nil {
				post(map[string]any{"kind": "error", "text": err.Error()})
				return
			}
			post(map[string]any{"kind": "done"})
		}()
		return nil
	}))
	select {}
}

func post(message map[string]any) { js.Global().Call("postMessage", message) }

func read(file []byte, window int, mask bool) error {
	m, err := ecoli.Open("", "", 0)
	if err != nil {
		return err
	}
	var raw []byte
	r := track.Reader{Model: m, Window: window, Mask: mask,
		Record: func(name string, bases int) {
			post(map[string]any{"kind": "record", "name": name, "bases": bases})
		},
		Piece: func(letters []byte, bits []float32) {
			raw = raw[:0]
			for _, v := range bits {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
			}
			post(map[string]any{"kind": "piece", "letters": array(letters), "bits": array(raw)})
		},
	}
	return r.Read(context.Background(), bytes.NewReader(file))
}

// array returns a copy of b as a Uint8Array.
func array(b []byte) js.Value {
	a := js.Global().Get("Uint8Array").New(len(b))
	js.CopyBytesToJS(a, b)
	return a
}
