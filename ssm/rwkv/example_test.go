package rwkv_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/ssm/rwkv"
)

// folder writes a small trained model as it is published, without its tokens, which are bytes.
func folder() (dir string, remove func()) {
	f, err := weights.Open("../../testdata/golden/ssm_rwkv7_model_834K.safetensors")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	s := weightstest.State{}
	for _, name := range f.Names() {
		if param, ok := strings.CutPrefix(name, "param."); ok {
			data, err := f.Tensor(name).Float32()
			if err != nil {
				panic(err)
			}
			s[param] = weightstest.Tensor{Shape: f.Tensor(name).Shape, Data: data}
		}
	}
	if dir, err = os.MkdirTemp("", "rwkv"); err != nil {
		panic(err)
	}
	if err := os.WriteFile(dir+"/rwkv7.pth", s.Torch(false), 0o600); err != nil {
		panic(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// A checkpoint tells its own size. The state is of one size however long the text. This model
// of bytes is one that rwkv.cpp is tested with, and knows little more than the commonest word.
func Example() {
	dir, remove := folder()
	defer remove()
	m, err := rwkv.Open(dir+"/rwkv7.pth", rwkv.Config{})
	if err != nil {
		panic(err)
	}
	st, err := m.NewState(rwkv.StateConfig{})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d layers of %d, a state of %d kB\n", m.Config().Layers, m.Config().Dim, st.Bytes()/1000)
	var text []byte
	for token, err := range m.Generate(context.Background(), []int32("In the "), st, rwkv.GenerateConfig{MaxTokens: 40}) {
		if err != nil {
			panic(err)
		}
		text = append(text, byte(token))
	}
	fmt.Printf("%q\n", text)
	// Output:
	// 12 layers of 64, a state of 202 kB
	// "the the the the the the the the the the "
}

// A text is cut into the longest tokens that there are.
func ExampleReadVocabulary() {
	v, err := rwkv.ReadVocabulary(strings.NewReader("98 'a' 1\n99 'b' 1\n258 'ab' 2\n259 '\\n' 1\n"))
	if err != nil {
		panic(err)
	}
	tokens, err := v.Encode("abba\n")
	fmt.Println(tokens, err)
	// Output: [258 99 98 259] <nil>
}
