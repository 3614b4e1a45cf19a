package mamba

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
)

const trained = 20

func calibrated(t testing.TB, m *Model) *longmamba.Calibration {
	t.Helper()
	c, err := m.Calibrate(t.Context(), [][]int32{tokens(5, trained), tokens(6, trained)}, longmamba.CalibrationConfig{Lengths: []int{20, 40, 80, 160}})
	must(t, err)
	return c
}

func filter(t testing.TB, c *longmamba.Calibration, cfg longmamba.FilterConfig) *longmamba.Filter {
	t.Helper()
	f, err := c.NewFilter(cfg)
	must(t, err)
	return f
}

// TestFilter: a prompt with a filter, whole, in pieces, stored in between, forked and
// rolled back, by a call's filter and by Prefill.
func TestFilter(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, prompt = 120, 100
		for name, m := range models(t) {
			f := filter(t, calibrated(t, m), longmamba.FilterConfig{All: true})
			ids, want, got, vanilla := tokens(9, n), zeros(n, vocab), zeros(n, vocab), zeros(n, vocab)
			state := func(snapshots int) *State {
				st, err := m.NewState(ssm.StateConfig{Filter: f, Prompt: prompt, Snapshots: snapshots})
				must(t, err)
				return st
			}
			must(t, m.Forward(vanilla, ids))
			must(t, m.Step(want, ids, state(0)))
			if slices.Equal(want.Data, vanilla.Data) {
				t.Fatalf("%s: the filter has changed nothing", name)
			}
			st := state(2)
			for _, cut := range [][2]int{{0, 1}, {1, 37}, {37, 90}, {90, 110}, {110, n}} {
				var b bytes.Buffer
				_, err := st.WriteTo(&b)
				must(t, err)
				read, err := m.ReadState(&b)
				must(t, err)
				must(t, read.SetFilter(f, prompt))
				must(t, read.SetFilter(nil, 0))
				must(t, read.SetFilter(f, prompt))
				piece, stored := zeros(cut[1]-cut[0], vocab), zeros(cut[1]-cut[0], vocab)
				must(t, m.Step(piece, ids[cut[0]:cut[1]], st))
				must(t, m.Step(stored, ids[cut[0]:cut[1]], read))
				same(t, name+", stored", stored.Data, piece.Data)
				copy(mat.Rows(got, cut[0], cut[1]).Data, piece.Data)
			}
			near(t, name+", in pieces", got.Data, want.Data, 1e-4)
			must(t, st.Truncate(110))
			again := zeros(10, vocab)
			must(t, m.Step(again, ids[110:], st))
			same(t, name+", rolled back", again.Data, mat.Rows(got, 110, n).Data[:10*vocab])
			must(t, st.SetFilter(nil, 0)) // for snapshots too
			must(t, st.Truncate(110))
			if filtered(st, len(m.blocks)) {
				t.Errorf("%s: rolling back brings a filter back", name)
			}
			other := newState(t, m, 0)
			must(t, other.CopyFrom(state(0)))
			must(t, m.Run(t.Context(), &Call{Tokens: ids, State: other, Logits: got, Workers: 3}))
			same(t, name+", copied", got.Data, want.Data)
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: got, Filter: func(layer int) ssm.DeltaFilter {
				delta, err := f.Delta(layer, prompt)
				must(t, err)
				return delta
			}}))
			same(t, name+", of a call", got.Data, want.Data)

			// Prefill, and one token after it.
			st = newState(t, m, 1)
			last := zeros(1, vocab)
			kept, err := m.Prefill(t.Context(), &PrefillCall{Tokens: ids[:prompt], State: st, Last: last, Filter: f, Workers: 2})
			must(t, err)
			near(t, name+", Prefill", last.Data, mat.Row(want, prompt-1), 1e-5)
			must(t, m.Step(last, ids[prompt:prompt+1], st))
			near(t, name+", after Prefill", last.Data, mat.Row(want, prompt), 1e-4)
			if len(kept) != prompt || st.Len() != prompt+1 {
				t.Errorf("%s: %d tokens kept, %d in the state", name, len(kept), st.Len())
			}
		}
	})
}

// TestDecimate: tokens that are dropped after a layer are as if later layers had
// never seen them.
func TestDecimate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 90
		for name, m := range models(t) {
			ids := tokens(9, n)
			decimate := func(cfg longmamba.DecimationConfig) ([]int, []float32, *State) {
				d, err := longmamba.NewDecimation(cfg)
				must(t, err)
				last, st := zeros(1, vocab), newState(t, m, 0)
				kept, err := m.Prefill(t.Context(), &PrefillCall{Tokens: ids, State: st, Last: last, Decimate: d, Workers: 3})
				must(t, err)
				return kept, last.Data, st
			}
			want := zeros(1, vocab)
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Last: want}))
			if kept, last, _ := decimate(longmamba.DecimationConfig{Layers: []int{0}}); len(kept) != n {
				t.Errorf("%s: %d of %d tokens kept", name, len(kept), n)
			} else {
				near(t, name+", all kept", last, want.Data, 1e-5)
			}
			kept, last, st := decimate(longmamba.DecimationConfig{Layers: []int{0}, Base: 30, Response: 3})
			if len(kept) != 33 || !slices.IsSorted(kept) || kept[30] != n-3 || st.Len() != n {
				t.Fatalf("%s: kept %v, %d tokens in the state", name, kept, st.Len())
			}
			must(t, m.Step(zeros(1, vocab), ids[:1], st)) // the state goes on

			// The first layer by itself, and the model without it for what is left: its
			// embedding is what they are then.
			after := zeros(n, dim)
			call := Call{Tokens: ids, Residuals: make([]blas32.General, m.cfg.Layers+1), Filter: func(layer int) ssm.DeltaFilter {
				return func(position, _ int, dt []float32) {
					if layer == 0 && !slices.Contains(kept, position) {
						clear(dt)
					}
				}
			}}
			call.Residuals[1] = after
			must(t, m.Run(t.Context(), &call))
			rest := state{checkpoints()[name].Renamed(func(n string) string {
				var layer int
				if k, _ := fmt.Sscanf(n, "backbone.layers.%d.", &layer); k == 1 {
					if layer == 0 {
						return ""
					}
					return strings.Replace(n, fmt.Sprint("layers.", layer), fmt.Sprint("layers.", layer-1), 1)
				}
				return n
			})}
			head := rest.State["backbone.embedding.weight"]
			head.Shape, head.Data = []int{len(kept), dim}, append(slices.Clone(head.Data), make([]float32, (len(kept)-vocab)*dim)...)
			rest.State["lm_head.weight"] = head
			embedding := weightstest.Tensor{Shape: head.Shape}
			left := make([]int32, len(kept))
			for i, at := range kept {
				embedding.Data, left[i] = append(embedding.Data, mat.Row(after, at)...), int32(i)
			}
			rest.State["backbone.embedding.weight"] = embedding
			want = zeros(1, len(kept))
			must(t, rest.model(t, small).Run(t.Context(), &Call{Tokens: left, Last: want}))
			near(t, name+", by hand", last, want.Data[:vocab], 1e-5)
			if kept, _, _ := decimate(longmamba.DecimationConfig{Layers: []int{1, 0}, Base: 40, MinTokens: 1}); len(kept) != 20 {
				t.Errorf("%s: %d tokens after two layers, want 20", name, len(kept))
			}
		}
	})
}

// TestReport: receptive fields, what is kept and decays, of a prompt.
func TestReport(t *testing.T) {
	for name, m := range models(t) {
		f := filter(t, calibrated(t, m), longmamba.FilterConfig{All: true})
		for _, n := range []int{0, 1, 150} {
			plain, err := m.Report(t.Context(), tokens(9, n), nil)
			must(t, err)
			reports, err := m.Report(t.Context(), tokens(9, n), f)
			must(t, err)
			if len(reports) != len(m.blocks) || len(reports[0]) != m.blocks[0].Channels() {
				t.Fatalf("%s: %d layers", name, len(reports))
			}
			for layer, list := range reports {
				for i, r := range list {
					p := plain[layer][i]
					if n == 150 && (r.Kept == 1 || r.After <= r.Before || p.Kept != 1 || p.After != p.Before) {
						t.Errorf("%s: layer %d, channel %d: %+v, without a filter %+v", name, layer, i, r, p)
					}
					if n == 1 && r != p || n == 0 && (r.Before != 0 || r.Kept != 0) {
						t.Errorf("%s, %d tokens: layer %d, channel %d: %+v", name, n, layer, i, r)
					}
				}
			}
		}
	}
}

func TestLongMambaErrors(t *testing.T) {
	m := models(t)["Mamba-2"]
	c := calibrated(t, m)
	f := filter(t, c, longmamba.FilterConfig{})
	wants := func(err, kind error, text string) {
		t.Helper()
		if err == nil || !errors.Is(err, kind) || err.Error() != text {
			t.Errorf("error %v, want %s", err, text)
		}
	}
	calibrate := func(m *Model, cfg longmamba.CalibrationConfig, list ...[]int32) error {
		_, err := m.Calibrate(t.Context(), list, cfg)
		return err
	}
	none := longmamba.CalibrationConfig{}
	wants(calibrate(m, none), ErrShape, "mamba: no sequences to calibrate with")
	wants(calibrate(m, none, tokens(1, 20), tokens(2, 21)), ErrShape, "mamba: sequence 1 has 21 tokens, want 20 as the first, or as TrainLength says")
	wants(calibrate(m, longmamba.CalibrationConfig{TrainLength: 5}, tokens(1, 20)), ErrShape, "mamba: sequence 0 has 20 tokens, want 5 as the first, or as TrainLength says")
	wants(calibrate(m, none, nil), ssm.ErrConfig, "mamba: longmamba: TrainLength is 0, want 1 to 16777216")
	wants(calibrate(m, longmamba.CalibrationConfig{Clamp: 2}, tokens(1, 20)), ssm.ErrConfig, "mamba: longmamba: Clamp is 2, want 0 or more and less than 1")
	wants(calibrate(m, none, []int32{vocab}), ErrShape, "mamba: Tokens[0] is 24, want 0 to 23")
	broken := random(false, 2)
	broken.State["backbone.embedding.weight"].Data[3*dim] = float32(math.NaN())
	err := calibrate(broken.model(t, small), none, []int32{1, 2, 3})
	wants(err, longmamba.ErrCalibration, "mamba: sequence 0, layer 0: longmamba: the step of token 2 in channel 0 is NaN, want a finite number, 0 or more")

	other := random(false, 2, 2, 2).model(t, small)
	_, err = other.NewState(ssm.StateConfig{Filter: f, Prompt: 9})
	wants(err, ErrConfig, "mamba: Filter is of 2 blocks, want 3, one for each layer")
	changed := random(false, 2, 2)
	changed.State["backbone.layers.1.mixer.A_log"].Data[0] = 1.25
	_, err = changed.model(t, small).NewState(ssm.StateConfig{Filter: f, Prompt: 9})
	if !errors.Is(err, longmamba.ErrCalibration) || !strings.HasPrefix(err.Error(), "mamba: layer 1: longmamba: the calibration is of another operator than this Mamba2 block") {
		t.Errorf("error %v", err)
	}
	_, err = m.NewState(ssm.StateConfig{Filter: f})
	wants(err, ssm.ErrConfig, "mamba: layer 0: longmamba: Prompt is 0, want the tokens of the whole prompt, or a filter that decodes")
	wants(new(State).SetFilter(f, 9), ErrState, "lm: the state was not made by NewState")

	prefill := func(call PrefillCall) error { _, err := m.Prefill(t.Context(), &call); return err }
	st, err := m.NewState(ssm.StateConfig{Filter: filter(t, c, longmamba.FilterConfig{All: true}), Prompt: 99})
	must(t, err)
	ids := tokens(1, 5)
	wants(prefill(PrefillCall{Tokens: ids, State: st}), ErrState, "mamba: the state has a filter, want one without")
	wants(prefill(PrefillCall{Tokens: ids, Filter: filter(t, calibrated(t, other), longmamba.FilterConfig{})}), ErrConfig, "mamba: Filter is of 3 blocks, want 2, one for each layer")
	wants(prefill(PrefillCall{Last: zeros(1, vocab)}), ErrShape, "mamba: Last is wanted, but sequence 0 has no tokens")
	drop, err := longmamba.NewDecimation(longmamba.DecimationConfig{Layers: []int{0}, Base: 1, Beta: 0.5, MinTokens: -1})
	must(t, err)
	all, err := longmamba.NewDecimation(longmamba.DecimationConfig{Layers: []int{1, 0}, Base: 1, Beta: 0.5, MinTokens: -1})
	must(t, err)
	must(t, prefill(PrefillCall{Tokens: ids, Decimate: drop, Last: zeros(1, vocab)}))
	wants(prefill(PrefillCall{Tokens: ids, Decimate: all, Last: zeros(1, vocab)}), ErrShape, "mamba: Last is wanted, but all of 5 tokens have been dropped")
	must(t, prefill(PrefillCall{Filter: f}))
}
