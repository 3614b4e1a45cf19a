package hyena

import (
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state"
)

// ModalConfig fixes a convolution with a modal filter.
type ModalConfig struct {
	// Modes are the filter.
	Modes *Modes
	// Skip is D, one factor for each channel; nil for none.
	Skip []float32
	// SpectraBytes is how much memory the kernel in time and its spectra may keep, for calls
	// without states, 0 for 2 GiB. Results do not depend on it.
	SpectraBytes int64
	// Cache is where they are kept, and its size counts, not SpectraBytes; nil is the
	// convolution's own.
	Cache *Cache
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Scratch is the working memory to use; nil is the convolution's own.
	Scratch *Scratch
}

// Modal is a convolution of each channel with a modal filter ([Modes]),
//
//	y[t][c] = sum over m <= t of k[m][c] x[t-m][c] + D[c] x[t][c],
//
// which is also a recurrence with N complex numbers for each channel, s[t] = p s[t-1] + x[t]
// and y[t] = Re sum of R s[t] + D x[t]. Calls of a whole sequence are Fourier convolutions;
// calls with a State are the recurrence, in chunks of 32 tokens, to the same result within
// the accuracy of either, and the same bits for every split. A state does not grow.
//
// A Modal is immutable and safe for concurrent use.
type Modal struct {
	cfg     ModalConfig
	modes   *Modes
	tables  *modalTables
	conv    *Conv // the kernel in time
	grown   *grownKernel
	kind    kind
	scratch *Scratch
}

// NewModal returns a convolution, or an error that matches ErrConfig.
func NewModal(cfg ModalConfig) (*Modal, error) {
	if cfg.Modes == nil {
		return nil, check.Errorf(ErrConfig, "hyena: Modes is nil")
	}
	channels := cfg.Modes.Channels()
	if cfg.Skip != nil {
		if err := check.Vector(ErrConfig, pkg, "Skip", cfg.Skip, channels, "channels"); err != nil {
			return nil, err
		}
		if err := check.Finite(ErrConfig, pkg, "Skip", cfg.Skip); err != nil {
			return nil, err
		}
	}
	cfg.Skip = append([]float32(nil), cfg.Skip...)
	var err error
	if cfg.Cache == nil {
		if cfg.Cache, err = NewCache(cfg.SpectraBytes); err != nil {
			return nil, check.Errorf(ErrConfig, "hyena: SpectraBytes is %d, want 0 or more", cfg.SpectraBytes)
		}
	}
	if cfg.Scratch == nil {
		cfg.Scratch = new(Scratch)
	}
	m := &Modal{cfg: cfg, modes: cfg.Modes, scratch: cfg.Scratch}
	m.grown = &grownKernel{filter: cfg.Modes, cache: cfg.Cache, turn: make(chan struct{}, 1)}
	source := &filterColumns{kernel: m.grown, width: channels, skip: cfg.Skip}
	if m.conv, err = newConv(ConvConfig{SpectraBytes: cfg.SpectraBytes, Cache: cfg.Cache, Workers: cfg.Workers, Scratch: cfg.Scratch}, channels, mostTokens, source); err != nil {
		return nil, err
	}
	m.tables = newModalTables(cfg.Modes, cfg.Skip)
	name := fmt.Sprintf("Modal of %d channels with %d modes", channels, cfg.Modes.Modes())
	f := state.NewFingerprint(name)
	cfg.Modes.sum(&f)
	f.Floats(cfg.Skip)
	m.kind = kind{name: name, size: m.tables.size(), hash: uint64(f), most: mostTokens}
	return m, nil
}

// sum adds the modes to a fingerprint.
func (m *Modes) sum(f *state.Fingerprint) {
	for _, list := range [2][]complex128{m.poles, m.residues} {
		x := make([]float32, 0, 2*len(list))
		for _, v := range list {
			x = append(x, float32(real(v)), float32(imag(v)))
		}
		f.Floats(x)
	}
}

// Channels returns the number of channels.
func (m *Modal) Channels() int { return m.modes.Channels() }

// Fingerprint tells convolutions with other modes apart: a state belongs to all of one.
func (m *Modal) Fingerprint() uint64 { return m.kind.hash }

// Bytes returns the memory that the convolution takes now: its modes, tables of 128 N+160
// float32 for each channel, and what calls and Prepare have kept.
func (m *Modal) Bytes() int64 {
	return sumBytes(m.modes.Bytes(), m.tables.bytes(), floatBytes(len(m.cfg.Skip)), m.grown.rowBytes(), m.conv.keptBytes())
}

// StateBytes returns the memory of a state, without snapshots; it does not grow.
func (m *Modal) StateBytes(int) int64 { return floatBytes(m.kind.size) }

// ScratchBytes returns the working memory that a call of this many tokens holds, beside
// Bytes, when every worker is busy.
func (m *Modal) ScratchBytes(tokens int) int64 {
	return sumBytes(m.conv.ScratchBytes(tokens), m.stepBytes())
}

// stepBytes is the working memory of the recurrence.
func (m *Modal) stepBytes() int64 {
	workers := min(parallel.Workers(m.cfg.Workers), (m.Channels()+blockChannels-1)/blockChannels)
	return sumBytes(floatBytes(workers, min(blockChannels, m.Channels()), 3*modalChunk+2*m.modes.n), floatBytes(m.kind.size), 1<<10)
}

// NewState returns an empty state. Errors match ErrConfig.
func (m *Modal) NewState(cfg StateConfig) (*State, error) { return m.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this convolution, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (m *Modal) ReadState(r io.Reader) (*State, error) { return m.kind.readState(r) }

// ModalCall is a call of Modal with everything optional.
type ModalCall struct {
	// Dst and X are [tokens, channels]; Dst may be X.
	Dst, X blas32.General
	// Offsets packs several sequences into one call: the first row of each and at last the
	// number of rows.
	Offsets []int
	// State is where the sequence goes on from, and is brought up to date. States has a state
	// for each sequence; without Offsets each is for one row.
	State  *State
	States []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}
