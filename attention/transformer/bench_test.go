package transformer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/parallel"
)

// smolLM2 is the shape of SmolLM2-135M.
const smolLM2 = `{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
	"num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-05, "rope_theta": 100000, "tie_word_embeddings": true}`

// randomFile is a safetensors file of random numbers in bfloat16 that takes no memory.
type randomFile struct {
	head []byte
	data [1 << 16]byte // over and over
	size int64
}

func newRandomFile(tensors map[string][]int) *randomFile {
	f, header, at := new(randomFile), map[string]any{}, 0
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(f.data); i += 2 {
		binary.LittleEndian.PutUint16(f.data[i:], asm.BFloat16Bits(float32(0.1*r.NormFloat64())))
	}
	for name, shape := range tensors {
		n := 2
		for _, d := range shape {
			n *= d
		}
		header[name] = map[string]any{"dtype": "BF16", "shape": shape, "data_offsets": []int{at, at + n}}
		at += n
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	f.head = append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	f.size = int64(len(f.head) + at)
	return f
}

func (f *randomFile) ReadAt(b []byte, at int64) (int, error) {
	n := 0
	if at < int64(len(f.head)) {
		n = copy(b, f.head[at:])
	}
	for at -= int64(len(f.head)); n < len(b); {
		n += copy(b[n:], f.data[(at+int64(n))%int64(len(f.data)):])
	}
	return n, nil
}

// read135M returns a model of SmolLM2's shape and random weights.
func read135M(tb testing.TB, cfg Config) *Model {
	tensors := map[string][]int{"model.embed_tokens.weight": {49152, 576}, "model.norm.weight": {576}}
	for i := range 30 {
		for name, shape := range map[string][]int{
			"input_layernorm": {576}, "post_attention_layernorm": {576}, "self_attn.q_proj": {576, 576}, "self_attn.k_proj": {192, 576},
			"self_attn.v_proj": {192, 576}, "self_attn.o_proj": {576, 576}, "mlp.gate_proj": {1536, 576}, "mlp.up_proj": {1536, 576}, "mlp.down_proj": {576, 1536},
		} {
			tensors[fmt.Sprintf("model.layers.%d.%s.weight", i, name)] = shape
		}
	}
	f := newRandomFile(tensors)
	m, err := Read(f, f.size, []byte(smolLM2), cfg)
	must(tb, err)
	return m
}

var random135M = func() func(tb testing.TB, format asm.Format) *Model {
	var mu sync.Mutex
	var last *Model
	return func(tb testing.TB, format asm.Format) *Model {
		mu.Lock()
		defer mu.Unlock()
		if last != nil && last.cfg.Format == format {
			return last
		}
		last = nil
		runtime.GC()
		m := read135M(tb, Config{Format: format})
		last = m
		return m
	}
}()

// best keeps the shortest of several times, which is what a machine that does other things can
// be judged by.
type best struct{ shortest time.Duration }

func (t *best) time(f func()) {
	begin := time.Now()
	f()
	if d := time.Since(begin); t.shortest == 0 || d < t.shortest {
		t.shortest = d
	}
}

// report says the rate of the mean and of the shortest time.
func (t *best) report(b *testing.B, amount float64, unit string) {
	b.ReportMetric(amount*float64(b.N)/b.Elapsed().Seconds(), unit)
	b.ReportMetric(amount/t.shortest.Seconds(), "best-"+unit)
}

var benchFormats = []struct {
	name   string
	format asm.Format
}{{"f32", asm.Float32}, {"bf16", asm.BFloat16}, {"int8", asm.Int8}}

// BenchmarkDecode times a token after 64 others, by the bytes of weights that it reads: see
// BenchmarkMemory for what the machine can read.
func BenchmarkDecode(b *testing.B) {
	for _, f := range benchFormats {
		if testing.Short() && f.format != asm.BFloat16 {
			continue
		}
		for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
			b.Run(fmt.Sprintf("llama-135m/%s/workers=%d", f.name, workers), func(b *testing.B) {
				m := random135M(b, f.format)
				st, err := m.NewState(StateConfig{MaxTokens: 128})
				must(b, err)
				ids := tokens(m, 65)
				must(b, m.Run(b.Context(), &Call{Tokens: ids[:64], State: st}))
				logits := zeros(1, m.shape.Vocab)
				call := &Call{Tokens: ids[64:], State: st, Logits: logits, Workers: workers}
				step := func() {
					must(b, m.Run(b.Context(), call))
					must(b, st.Truncate(64))
				}
				step()
				b.ReportAllocs()
				var t best
				for b.Loop() {
					t.time(step)
				}
				t.report(b, float64(m.Bytes())/1e9, "GB/s")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

// BenchmarkPrefill times a prompt of which only the last token's logits are made: see
// BenchmarkPeak for what the machine can multiply.
func BenchmarkPrefill(b *testing.B) {
	for _, f := range benchFormats {
		if testing.Short() && f.format != asm.BFloat16 {
			continue
		}
		n := 2048
		if testing.Short() {
			n = 256
		}
		b.Run(fmt.Sprintf("llama-135m/%s/n=%d", f.name, n), func(b *testing.B) {
			m := random135M(b, f.format)
			st, err := m.NewState(StateConfig{MaxTokens: n})
			must(b, err)
			call := &Call{Tokens: tokens(m, n), State: st, Last: zeros(1, m.shape.Vocab)}
			run := func() {
				st.Reset()
				must(b, m.Run(b.Context(), call))
			}
			run()
			var t best
			for b.Loop() {
				t.time(run)
			}
			layers := 30 * (576.*(576+2*192+576) + 3*576*1536)
			rows := float64(n)
			flop := 2*rows*layers + 2*576*49152 + 30*4*576*rows*rows/2
			t.report(b, flop/1e9, "GFLOP/s")
			b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// BenchmarkMemory reads 256 MB: what decoding is to be measured by. Weights stand in large pages,
// where the system has them, and may be read faster than what is read here.
func BenchmarkMemory(b *testing.B) {
	const parts, n = 64, 1 << 20
	data := make([]float32, parts*n)
	for i := range data {
		data[i] = 1
	}
	var sums [parts]float32
	var g parallel.Group
	task := func(_, i int) { sums[i] = asm.Sum(data[i*n:][:n]) }
	for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			var t best
			for b.Loop() {
				t.time(func() { must(b, g.Run(b.Context(), workers, parts, task)) })
			}
			t.report(b, 4*float64(len(data))/1e9, "GB/s")
		})
	}
	if sums[0] != n {
		b.Errorf("the sum is %v", sums[0])
	}
}

// BenchmarkPeak multiplies matrices that stay in the first caches: what prefill is to be
// measured by.
func BenchmarkPeak(b *testing.B) {
	const rows, inner, outer, times = 48, 256, 64, 500 // 64 kB of weights
	var g parallel.Group
	weights := asm.NewMatrix(asm.Float32, zeros(inner, outer))
	for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			x, y := make([]blas32.General, workers), make([]blas32.General, workers)
			for i := range workers {
				x[i], y[i] = zeros(rows, inner), zeros(rows, outer)
			}
			task := func(worker, _ int) {
				for range times {
					asm.Gemm(y[worker], x[worker], weights, nil)
				}
			}
			var t best
			for b.Loop() {
				t.time(func() { must(b, g.Run(b.Context(), workers, 4*workers, task)) })
			}
			t.report(b, 2*rows*inner*outer*times*4*float64(workers)/1e9, "GFLOP/s")
		})
	}
}
