package transformer

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/mla"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/rope"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/delta"
)

// Open returns the model of a checkpoint: a folder as the Hugging Face hub has it, with
// config.json and model.safetensors, or an index of several files, or PyTorch's; or one of
// these files, with config.json beside it. generation_config.json is read where there is one.
// A file *.bin may also be one of llama2.c, version 0 or 1, which tells all by itself.
// Errors match ErrCheckpoint and name the tensor that is missing, has another shape or is
// not read by this model, match ErrConfig, or come from the file system.
//
// Options are subquad.WithMmap, which maps the file instead of reading it.
//
// Tensors may be F32, F16, BF16, F64, F8_E4M3 or F8_E5M2, the latter with a scale for each
// block or tensor (weight_scale_inv: DeepSeek-V3, Qwen3's FP8), and experts of gpt-oss MXFP4. Names may begin with "model.", with nothing, or with "language_model." where
// a file has parts for other media, which are passed over.
func Open(path string, cfg Config, options ...subquad.OpenOption) (*Model, error) {
	if m, err := openLlama2C(path, cfg, options...); m != nil || err != nil {
		return m, err
	}
	var shape *Shape
	return lm.Open("transformer", path, func(text []byte) error {
		var err error
		shape, err = ParseConfig(text)
		if err == nil {
			err = shape.readGeneration(path)
		}
		if err == nil {
			err = cfg.fits(shape)
		}
		return err
	}, func(f *weights.File) (*Model, error) {
		if shape == nil {
			return nil, check.Errorf(ErrConfig, "transformer: no config.json beside %.200s", path)
		}
		return newModel(f, shape, cfg)
	}, options...)
}

// Read returns the model of a safetensors or PyTorch file of size bytes, which is no longer
// needed afterwards. config is the text of its config.json. Errors match ErrConfig or
// ErrCheckpoint.
func Read(r io.ReaderAt, size int64, config []byte, cfg Config) (*Model, error) {
	shape, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if err := cfg.fits(shape); err != nil {
		return nil, err
	}
	return lm.Read("transformer", r, size, func(f *weights.File) (*Model, error) { return newModel(f, shape, cfg) })
}

// fits returns an error where a model is not to be opened so.
func (cfg *Config) fits(shape *Shape) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if n := cfg.bytes(shape); cfg.MaxBytes > 0 && n > cfg.MaxBytes {
		return check.Errorf(ErrConfig, "transformer: the weights take %d bytes as %v, more than MaxBytes = %d", n, cfg.stored(), cfg.MaxBytes)
	}
	return nil
}

// checkpoint makes layers of tensors, under the names of Llama's without "model.". It
// notes which it has read.
type checkpoint struct {
	*lm.Checkpoint
	shape *Shape
	cfg   Config
	read  map[string]bool

	operators map[int]*attention.Attention // those that layers share, by window
	runs      *scratch.List[mixerRun]
	latent    *scratch.List[latentRun]
	blocks    *ssm.Scratch
	deltas    *delta.Scratch
}

// newModel builds the model of a checkpoint.
func newModel(f *weights.File, shape *Shape, cfg Config) (*Model, error) {
	c := &checkpoint{
		Checkpoint: lm.NewCheckpoint("transformer", f, naming, cfg.Format), shape: shape, cfg: cfg, read: map[string]bool{},
		operators: map[int]*attention.Attention{}, runs: new(scratch.List[mixerRun]), latent: new(scratch.List[latentRun]),
		blocks: new(ssm.Scratch), deltas: new(delta.Scratch),
	}
	stack := lm.Config{Package: "transformer", Name: shape.ModelType, Workers: cfg.Workers}
	c.ends(&stack)
	for i := range shape.Layers {
		if c.Err != nil {
			return nil, c.Err
		}
		stack.Layers = append(stack.Layers, c.layer(i, fmt.Sprintf("layers.%d.", i)))
	}
	c.allRead()
	if c.Err != nil {
		return nil, c.Err
	}
	m := &Model{shape: *shape, cfg: cfg}
	var err error
	m.stack, err = lm.New(stack)
	return m, err
}

// matrix and vector are Matrix and Vector of a tensor that counts as read.
func (c *checkpoint) matrix(name string, rows, cols int) blas32.General {
	c.read[name] = true
	w := c.Matrix(name, rows, cols)
	c.scale(name, w, -1)
	return w
}

func (c *checkpoint) vector(name string, n int) []float32 {
	c.read[name] = true
	return c.Vector(name, n)
}

// allRead fails where a tensor of the model was not read: a bias, say, that the
// configuration does not tell of.
func (c *checkpoint) allRead() {
	var left []string
	for name, t := range c.Tensors {
		if !c.read[name] && !passedOver(name, c.shape.Layers) {
			left = append(left, t.Name)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		c.Fail("%d tensors are not those of a %s, the first of them %.200s", len(left), c.shape.ModelType, left[0])
	}
}

// passedOver tells whether a tensor may be there without being read: tables that old
// exports have, scales of activations of 8 bits, which are not done, parts for other media,
// layers that predict tokens beyond the next.
func passedOver(name string, layers int) bool {
	if strings.HasSuffix(name, "rotary_emb.inv_freq") || strings.HasSuffix(name, ".activation_scale") {
		return true
	}
	for _, part := range []string{"mtp.", "vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "audio_tower."} {
		if strings.HasPrefix(name, part) {
			return true
		}
	}
	var layer int
	n, _ := fmt.Sscanf(name, "layers.%d.", &layer)
	return n == 1 && layer >= layers
}

// ends makes the embedding, the last norm and the head.
func (c *checkpoint) ends(stack *lm.Config) {
	s := c.shape
	name := embedding
	if s.tied && !c.Has(embedding) && c.Has(headName) {
		name = headName
	}
	words := c.matrix(name, s.Vocab, s.Dim)
	logits := words
	hasHead := !s.headless || c.Has(headName)
	if c.Has(headName) {
		logits = c.matrix(headName, s.Vocab, s.Dim)
	}
	stack.Norm = c.norm("norm.", s.Dim)
	if c.Err != nil {
		return
	}
	stack.Embedding = dense.Embedding{Tied: c.cfg.layer(words, nil), Scale: s.embScale}
	if hasHead {
		stack.Head = dense.Head{Weights: stack.Embedding.Tied, Scale: s.outScale, Cap: s.outCap}
		if !slices.Equal(words.Data, logits.Data) {
			stack.Head.Weights = c.cfg.layer(logits, nil)
		}
	}
}

// norm returns the norm of a prefix.
func (c *checkpoint) norm(prefix string, dim int) dense.Norm {
	w := c.vector(prefix+"weight", dim)
	if c.shape.onePlus {
		for i := range w {
			w[i]++
		}
	}
	n := dense.Norm{Weight: w, Eps: c.shape.eps, RMS: !c.shape.layerNorm}
	if c.shape.normBias {
		n.Bias = c.vector(prefix+"bias", dim)
	}
	return n
}

// projection returns a matrix [rows, cols] and its bias, or nil.
func (c *checkpoint) projection(prefix string, rows, cols int, bias bool) (blas32.General, []float32) {
	w := c.matrix(prefix+"weight", rows, cols)
	var b []float32
	if bias {
		b = c.vector(prefix+"bias", rows)
	}
	c.fold(prefix, w.Data, b)
	return w, b
}

// fold multiplies a matrix and its bias by the numbers that there are for it.
func (c *checkpoint) fold(prefix string, w, b []float32) {
	name := strings.TrimSuffix(prefix, ".")
	if by, ok := c.shape.folds[name[strings.LastIndexByte(name, '.')+1:]]; ok {
		asm.Scale(w, by.weight, w)
		asm.Scale(b, by.bias, b)
	}
}

func (c *checkpoint) linear(prefix string, rows, cols int, bias bool) *dense.Linear {
	return c.pack(c.projection(prefix, rows, cols, bias))
}

// pack returns a layer, or nil after an error.
func (c *checkpoint) pack(w blas32.General, bias []float32) *dense.Linear {
	if c.Err != nil {
		return nil
	}
	return c.cfg.layer(w, bias)
}

// stacked returns one layer of several, whose outputs stand side by side.
func (c *checkpoint) stacked(cols int, bias bool, names []string, rows []int) *dense.Linear {
	total := 0
	for _, n := range rows {
		total += n
	}
	var data, biases []float32
	for i, name := range names {
		w, b := c.projection(name, rows[i], cols, bias)
		if c.Err != nil {
			return nil
		}
		if data == nil {
			data = make([]float32, 0, total*cols)
		}
		data, biases = append(data, w.Data...), append(biases, b...)
	}
	return c.pack(mat.Of(data, total, cols), biases)
}

// mixer makes the attention of a layer.
func (c *checkpoint) mixer(layer int, prefix string, window int, rotation rope.Config) lm.Streamer {
	s := c.shape
	q, kv := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	m := &mixer{scratch: c.runs, layer: layer, heads: s.Heads, kvHeads: s.KVHeads, headDim: s.HeadDim, heat: s.heat, whole: s.qkNorm == wholeNorm}
	m.gate = s.outGate
	if s.outGate {
		m.qkv = c.withGate(prefix)
	} else if s.fused {
		m.qkv = c.linear(prefix+"qkv_proj.", q+2*kv, s.Dim, s.qkvBias)
	} else {
		m.qkv = c.stacked(s.Dim, s.qkvBias, []string{prefix + "q_proj.", prefix + "k_proj.", prefix + "v_proj."}, []int{q, kv, kv})
	}
	m.out = c.linear(prefix+"o_proj.", s.Dim, q, s.outBias)
	switch s.qkNorm {
	case headNorm:
		m.q, m.k = c.norm(prefix+"q_norm.", s.HeadDim), c.norm(prefix+"k_norm.", s.HeadDim)
	case ownNorm:
		m.q, m.k = c.norm(prefix+"q_norm.", q), c.norm(prefix+"k_norm.", kv)
	case lateNorm:
		m.q, m.k, m.late = c.norm(prefix+"q_norm.", s.HeadDim), c.norm(prefix+"k_norm.", s.HeadDim), true
	case wholeNorm:
		m.q, m.k = c.norm(prefix+"q_norm.", q), c.norm(prefix+"k_norm.", kv)
	}
	cfg := attention.Config{Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim, Scale: s.scale, Causal: true, Window: window, Softcap: s.softcap, Precision: c.cfg.Precision, Int8Products: c.cfg.Int8Products, Workers: c.cfg.Workers}
	if s.sinks {
		cfg.Sinks = c.vector(prefix+"sinks", s.Heads)
	}
	if c.Err != nil {
		return nil
	}
	m.op = c.operator(cfg)
	if c.cfg.Attention != nil {
		c.replace(m, layer, cfg)
	}
	if !rotation.None {
		if _, err := rope.New(rotation); err != nil {
			c.Fail("%s: %v", prefix, err)
		}
		if rotation.HeadDim != s.HeadDim {
			c.Fail("%s: a rotation of HeadDim %d, want %d", prefix, rotation.HeadDim, s.HeadDim)
		}
		m.rotation = &rotation
		if m.late || m.with != nil {
			rotation.Workers = 1
			m.before, _ = rope.New(rotation)
		}
	}
	return m
}

// withGate makes the first projection of attention with a gate, which stands behind each
// head's queries in one matrix.
func (c *checkpoint) withGate(prefix string) *dense.Linear {
	s := c.shape
	q, kv, d := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim, s.HeadDim
	both, bothBias := c.projection(prefix+"q_proj.", 2*q, s.Dim, s.qkvBias)
	k, kBias := c.projection(prefix+"k_proj.", kv, s.Dim, s.qkvBias)
	v, vBias := c.projection(prefix+"v_proj.", kv, s.Dim, s.qkvBias)
	if c.Err != nil {
		return nil
	}
	all := mat.New(2*q+2*kv, s.Dim)
	var bias []float32
	if s.qkvBias {
		bias = make([]float32, all.Rows)
		copy(bias[q:], kBias)
		copy(bias[q+kv:], vBias)
	}
	for h := range s.Heads {
		for part, to := range [...]int{h * d, q + 2*kv + h*d} {
			from := (2*h + part) * d
			mat.Copy(mat.Rows(all, to, to+d), mat.Rows(both, from, from+d))
			if bias != nil {
				copy(bias[to:], bothBias[from:from+d])
			}
		}
	}
	mat.Copy(mat.Rows(all, q, q+kv), k)
	mat.Copy(mat.Rows(all, q+kv, q+2*kv), v)
	return c.pack(all, bias)
}

// operator returns the attention of a configuration. Layers share one, and its working
// memory, where they have no sinks, which are a layer's own.
func (c *checkpoint) operator(cfg attention.Config) *attention.Attention {
	alone := cfg.Sinks != nil
	if op := c.operators[cfg.Window]; op != nil && !alone {
		return op
	}
	op, err := attention.New(cfg)
	if err != nil {
		c.Fail("%v", err)
		return nil
	}
	if !alone {
		c.operators[cfg.Window] = op
	}
	return op
}

// latentMixer makes the latent attention of a layer.
func (c *checkpoint) latentMixer(prefix string, rotation rope.Config) lm.Streamer {
	s, l := c.shape, c.shape.Latent
	w := mla.Weights{
		KVA:     c.matrix(prefix+"kv_a_proj_with_mqa.weight", l.KVRank+l.RopeDim, s.Dim),
		KVB:     c.matrix(prefix+"kv_b_proj.weight", s.Heads*(l.NopeDim+l.ValueDim), l.KVRank),
		Out:     c.matrix(prefix+"o_proj.weight", s.Dim, s.Heads*l.ValueDim),
		KVANorm: c.vector(prefix+"kv_a_layernorm.weight", l.KVRank),
	}
	if l.QRank > 0 {
		w.QA, w.QANorm = c.matrix(prefix+"q_a_proj.weight", l.QRank, s.Dim), c.vector(prefix+"q_a_layernorm.weight", l.QRank)
		w.QB = c.matrix(prefix+"q_b_proj.weight", s.Heads*(l.NopeDim+l.RopeDim), l.QRank)
	} else {
		w.QB = c.matrix(prefix+"q_proj.weight", s.Heads*(l.NopeDim+l.RopeDim), s.Dim)
	}
	if c.Err != nil {
		return nil
	}
	// The norms have the eps 1e-6 whatever rms_norm_eps says.
	op, err := mla.New(mla.Config{
		Dim: s.Dim, Heads: s.Heads, QRank: l.QRank, KVRank: l.KVRank, NopeDim: l.NopeDim, RopeDim: l.RopeDim, ValueDim: l.ValueDim,
		Scale: s.scale, Rotation: rotation, Format: c.Format, Int8Products: c.cfg.Int8Products, Workers: c.cfg.Workers,
	}, w)
	if err != nil {
		c.Fail("%s: %v", prefix, err)
		return nil
	}
	m := &latentMixer{op: op, rotation: rotation, dim: s.Dim, scratch: c.latent}
	m.fingerprint = latentFingerprint(&w, &rotation, s.scale)
	return m
}
