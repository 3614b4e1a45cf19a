package hyena

import (
	"math/bits"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// PartitionConfig fixes a partitioned convolution.
type PartitionConfig struct {
	// Kernel is k, [taps, channels]: row m is the weight of a sample m samples later. Nothing
	// of it is kept.
	Kernel blas32.General
	// Block is B, how many samples are transformed at once at the least, and by how many the
	// output comes later: a power of 2 from 16 to 65,536; 0 is 64.
	Block int
	// Largest is how many samples are transformed at once at the most, for taps far back: Block
	// times a power of 2, up to 1,048,576. Block itself makes the partition uniform; 0 is 256
	// Block.
	Largest int
	// MaxTaps is how many taps kernels may have that take this one's place (Replace); 0 is
	// those of Kernel.
	MaxTaps int
	// Fade is over how many samples Replace goes from one kernel to the other; 0 is Block.
	Fade int
}

// Partition is a convolution of signals of which a block must be answered before the next one
// is there, as in audio: each channel with a kernel of its own, as long as it may be,
//
//	y[t][c] = sum over m of k[m][c] x[t-m-B][c],
//
// B samples late. The kernel is cut into partitions, which are multiplied in the frequency
// domain with the blocks they meet: near taps in partitions of B, far ones in larger ones
// (Stockham 1966; Gardner 1995, "Efficient Convolution without Input-Output Delay"). The work
// for larger blocks is begun when their samples are there, one block of theirs before its
// results are needed, and spread evenly over the blocks of B until then, so that all of these
// take about the same time. It runs on the goroutine of the caller.
//
// A Partition is immutable and safe for concurrent use; what changes lives in a
// PartitionState. [Conv] with a State does without the delay, and in less time where there are
// many channels.
type Partition struct {
	cfg      PartitionConfig
	channels int
	b        kernel.Butterflies
	stages   []partitionStage
	hash     uint64 // fingerprint
}

// partitionStage is the partitions of one size, which have the taps from (included) to to
// (excluded): those of 0 to P-1 blocks before an output's.
type partitionStage struct {
	size, from, to int
	first, count   int // partitions: the lag of the first, in blocks, and how many
	units          []unit
	plans          [2]*plan      // of channels side by side, and of phases
	spectra        [][][]float32 // [unit][partition], nil where all taps are 0
	// direct, in place of all that, has each channel's taps backwards, where few of few channels
	// are summed as they stand.
	direct [][]float32
}

const (
	leastBlock, mostBlock, mostLargest = minSize, 1 << 16, 1 << 20
	// stageGrowth is how much larger a stage's blocks are than those of the one before.
	stageGrowth = 4
	// directStage is how many taps the first stage has at the most that are summed as they
	// stand.
	directStage = 1024
	// mostTaps bounds PartitionConfig.MaxTaps.
	mostTaps = 1 << 30
)

// NewPartition returns a partitioned convolution, or an error that matches ErrConfig. It costs
// a transform of the kernel, and keeps about twice to four times its memory.
func NewPartition(cfg PartitionConfig) (*Partition, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	p := &Partition{cfg: cfg, channels: cfg.Kernel.Cols, b: kernel.NewButterflies()}
	p.hash = cfg.fingerprint(p.b.Lanes())
	p.cfg.Kernel = blas32.General{} // not kept
	var w convWorker
	for size := cfg.Block; ; size = min(size*stageGrowth, cfg.Largest) {
		s := partitionStage{size: size, to: cfg.MaxTaps}
		if size > cfg.Block {
			s.from = 2 * size
		}
		last := size == cfg.Largest
		if next := 2 * min(size*stageGrowth, cfg.Largest); !last && next < s.to {
			s.to = next
		} else {
			last = true
		}
		// A partition lag blocks before has the taps (lag-1) size + 1 to (lag+1) size - 1.
		s.first = s.from / size
		s.count = max((s.to-2+size)/size, s.first) - s.first + 1
		if size == cfg.Block && s.to <= directStage && 5*p.channels < 2*p.b.Lanes() {
			s.addDirect(cfg.Kernel)
		} else {
			p.addUnits(&s)
			s.transform(cfg.Kernel, &w)
		}
		p.stages = append(p.stages, s)
		if last {
			return p, nil
		}
	}
}

// complete sets the fields that have a default, and checks all.
func (cfg *PartitionConfig) complete() error {
	k := cfg.Kernel
	if k.Rows <= 0 || k.Cols <= 0 {
		return check.Errorf(ErrConfig, "hyena: Kernel is %d x %d, want a tap and a channel or more", k.Rows, k.Cols)
	}
	if err := check.Matrix(ErrConfig, pkg, "Kernel", k, -1, k.Cols, "channels"); err != nil {
		return err
	}
	if cfg.Block == 0 {
		cfg.Block = 64
	}
	if cfg.Block < leastBlock || cfg.Block > mostBlock || bits.OnesCount(uint(cfg.Block)) != 1 {
		return check.Errorf(ErrConfig, "hyena: Block is %d, want a power of 2 from %d to %d", cfg.Block, leastBlock, mostBlock)
	}
	if cfg.Largest == 0 {
		cfg.Largest = min(256*cfg.Block, mostLargest)
	}
	if cfg.Largest < cfg.Block || cfg.Largest > mostLargest || bits.OnesCount(uint(cfg.Largest)) != 1 {
		return check.Errorf(ErrConfig, "hyena: Largest is %d, want Block = %d times a power of 2, up to %d", cfg.Largest, cfg.Block, mostLargest)
	}
	if cfg.MaxTaps == 0 {
		cfg.MaxTaps = k.Rows
	}
	if cfg.Fade == 0 {
		cfg.Fade = cfg.Block
	}
	switch {
	case cfg.MaxTaps < k.Rows || cfg.MaxTaps > mostTaps || check.Product(maxStateFloats/8, cfg.MaxTaps, k.Cols) < 0:
		return check.Errorf(ErrConfig, "hyena: MaxTaps is %d, want Kernel's %d rows or more, up to %d in all channels", cfg.MaxTaps, k.Rows, mostTaps)
	case cfg.Fade < 0 || cfg.Fade > mostTaps:
		return check.Errorf(ErrConfig, "hyena: Fade is %d, want 0 to %d", cfg.Fade, mostTaps)
	}
	return nil
}

// addDirect keeps the taps of a stage as they are.
func (s *partitionStage) addDirect(k blas32.General) {
	for c := range k.Cols {
		taps := make([]float32, s.to)
		for m := range min(s.to, k.Rows) {
			taps[s.to-1-m] = k.Data[m*k.Stride+c]
		}
		s.direct = append(s.direct, taps)
	}
}

// addUnits divides the channels of a stage into what is transformed at once: a channel by
// itself where it has rows enough.
func (p *Partition) addUnits(s *partitionStage) {
	lanes := p.b.Lanes()
	for channel := 0; channel < p.channels; {
		n := min(lanes, p.channels-channel)
		u := unit{channel, n, false}
		if s.size >= lanes*minSize && 5*n < 2*lanes {
			u = unit{channel, 1, true}
		}
		rows := s.size
		if u.phases {
			rows /= lanes
		}
		if kind := kindOf(u); s.plans[kind] == nil {
			s.plans[kind] = planFor(p.b, rows)
		}
		s.units = append(s.units, u)
		channel += u.channels
	}
}

// transform makes the spectra of the stage's partitions.
func (s *partitionStage) transform(k blas32.General, w *convWorker) {
	s.spectra = make([][][]float32, len(s.units))
	for i := range s.units {
		s.spectra[i] = make([][]float32, s.count)
	}
	part := mat.New(2*s.size, k.Cols)
	for q := range s.count {
		// Its taps, the first of which is that of lag first+q-1 blocks.
		clear(part.Data)
		begin := (s.first + q - 1) * s.size
		low, high := max(begin, s.from, 0), min(begin+2*s.size, s.to, k.Rows)
		if low >= high {
			continue
		}
		mat.Copy(mat.Rows(part, low-begin, high-begin), mat.Rows(k, low, high))
		for i, u := range s.units {
			plan := s.plans[kindOf(u)]
			data := make([]float32, plan.spectrumLen(u.phases))
			plan.transformKernels(nil, data, kernels{causal: part, lag: s.size}, u, w)
			s.spectra[i][q] = data
		}
	}
}

// Channels returns the number of channels, Latency by how many samples the output comes later.
func (p *Partition) Channels() int { return p.channels }

// Latency returns by how many samples the output comes later: Block.
func (p *Partition) Latency() int { return p.cfg.Block }

// Bytes returns the memory of the kernel's transforms.
func (p *Partition) Bytes() (n int64) {
	for i := range p.stages {
		for _, taps := range p.stages[i].direct {
			n += floatBytes(len(taps))
		}
		for _, list := range p.stages[i].spectra {
			for _, s := range list {
				n += floatBytes(len(s))
			}
		}
	}
	return n
}
