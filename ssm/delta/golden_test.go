package delta

import (
	"encoding/json"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "ssm/delta", map[string]func(*testing.T, *golden.File){
		"ssm.delta":        goldenDelta,
		"ssm.gated_linear": goldenDelta,
		"ssm.gdn_block":    goldenGDN,
		"ssm.kda_block":    goldenKDA,
		"ssm.rwkv7_block":  goldenRWKV7,
	})
}

// deltaCase is a case's config.
type deltaCase struct {
	Rule             string   `json:"rule"`
	HeadsQ           int      `json:"heads_q"`
	HeadsK           int      `json:"heads_k"`
	HeadsV           int      `json:"heads_v"`
	KeyDim           int      `json:"key_dim"`
	ValueDim         int      `json:"value_dim"`
	Decay            string   `json:"decay"`
	Erase            string   `json:"erase"`
	Beta             string   `json:"beta"`
	L2Norm           bool     `json:"l2norm"`
	L2NormEps        float64  `json:"l2norm_eps"`
	EraseBeforeDecay bool     `json:"erase_before_decay"`
	Scale            *float32 `json:"scale"`
	Offsets          []int    `json:"offsets"`
	Half             bool     `json:"half"` // results were rounded to float16: the file's tolerance says so
}

var decayKinds = map[string]Decay{"none": NoDecay, "constant": ConstantDecay, "head": HeadDecay, "key": KeyDecay}

var eraseKinds = map[string]Erase{"none": NoErase, "key": EraseKey, "key_gate": EraseGated, "vector": EraseVector, "pair": ErasePair}

// inChunks has pieces of every length and kind computed by matrix products until the
// function that it returns is called.
func inChunks() (end func()) {
	chunkTokens, chunkAlways = 2, true
	return func() { chunkTokens, chunkAlways = pieceTokens, false }
}

func goldenDelta(t *testing.T, f *golden.File) {
	defer inChunks()()
	var cases []string
	must(t, json.Unmarshal([]byte(f.Meta("cases")), &cases))
	for _, name := range cases {
		var c deltaCase
		f.Config("config."+name, &c)
		decay, known := decayKinds[c.Decay]
		erase, knows := eraseKinds[c.Erase]
		if !known || !knows {
			t.Fatalf("%s: decay %q, erase %q", name, c.Decay, c.Erase)
		}
		cfg := Config{
			Heads: c.HeadsV, KeyHeads: c.HeadsK, QueryHeads: c.HeadsQ, KeyDim: c.KeyDim, ValueDim: c.ValueDim,
			Decay: decay, Erase: erase, EraseFirst: c.EraseBeforeDecay, Normalize: c.L2Norm, NormEps: c.L2NormEps,
		}
		if c.Scale != nil {
			cfg.Scale = *c.Scale
		}
		n := f.Shape(name + ".q")[0]
		cfg.LogDecay = f.Optional(name + ".log_decay")
		input := func(tensor string) blas32.General {
			if tensor = name + "." + tensor; !f.Has(tensor) {
				return blas32.General{}
			}
			data, cols := f.Float32(tensor), 1
			for _, s := range f.Shape(tensor)[1:] {
				cols *= s
			}
			return mat.Of(data, n, cols)
		}
		call := Call{Q: input("q"), K: input("k"), V: input("v"), Decay: input("g"), Beta: input("beta"), WriteGate: input("write_gate"), Offsets: c.Offsets}
		switch erase {
		case EraseGated:
			call.Erase = input("erase_gate")
		case EraseVector:
			call.Erase = input("erase")
		case ErasePair:
			call.Erase, call.Insert = input("a"), input("b")
		}
		sequences, size := 1, c.HeadsV*c.KeyDim*c.ValueDim
		if c.Offsets != nil {
			sequences = len(c.Offsets) - 1
		}
		initial := f.Optional(name + ".initial_state")
		for _, cfg.Recurrent = range []bool{false, true} {
			op := value[*Recurrence](t)(New(cfg))
			call.States = nil
			for i := range sequences {
				st := value[*State](t)(op.NewState(StateConfig{}))
				if initial != nil {
					must(t, op.Write(st, mat.Of(initial[i*size:], c.HeadsV*c.KeyDim, c.ValueDim)))
				}
				call.States = append(call.States, st)
			}
			if call.Offsets == nil {
				call.Offsets = []int{0, n}
			}
			call.Dst = zeros(n, max(c.HeadsQ, c.HeadsV)*c.ValueDim)
			must(t, op.Run(t.Context(), &call))
			var final []float32
			for _, st := range call.States {
				m := zeros(c.HeadsV*c.KeyDim, c.ValueDim)
				must(t, op.Read(m, st))
				final = append(final, m.Data...)
			}
			f.Compare(name+".out", call.Dst.Data)
			f.Compare(name+".final_state", final)
		}
	}
}
