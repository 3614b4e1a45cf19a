package transformer

import "github.com/subquad/subquad/internal/dense"

// sliding says which layers have a window, where layer_types does not.
type sliding uint8

const (
	noLayer   sliding = iota
	allLayers         // every layer
	lateOnes          // from max_window_layers on
	evenOnes          // 0, 2, ...
	unrotated         // those that do not rotate
	mostOnes          // all but each sliding_window_pattern-th
)

// modelType is what the code of a model type has that a config.json need not say.
type modelType struct {
	eps      float64 // rms_norm_eps
	epsKey   string  // its name, where it is another; norms are LayerNorm then, unless rms
	rms      bool
	noInner  bool // intermediate_size need not be there
	headDim  int  // head_dim; 0 is hidden_size / num_attention_heads
	split    bool // which it is whatever head_dim says
	tied     bool // tie_word_embeddings
	askHeads bool // num_key_value_heads must be there: its default is another number
	slides   sliding
	window   int  // sliding_window where it is absent; 0 is none
	optional bool // a window counts only with use_sliding_window
	pattern  int  // sliding_window_pattern
	places   places
	qkNorm   norming
	bias     bias
	act      string // hidden_act where it is absent
	renamed  bool   // which is hidden_activation; in gemma it may be
	onePlus  bool
	fused    bool
	layers   func(f section) int       // their number, where there is no num_hidden_layers
	more     func(s *Shape, f section) // what only this type has
}

// bias says which projections of attention have a bias.
type bias uint8

const (
	noBias    bias = iota
	saidBias       // all four, with attention_bias
	qkvAlways      // q, k and v: nothing says so
)

// modelTypes has the values of transformers 5 (configuration_*.py and modeling_*.py).
var modelTypes = map[string]modelType{
	"llama":       {eps: 1e-6, bias: saidBias, more: mlpBias},
	"mistral":     {eps: 1e-6, askHeads: true, slides: allLayers, window: 4096},
	"ministral":   {eps: 1e-6, askHeads: true, slides: allLayers, window: 4096},
	"mixtral":     {eps: 1e-5, askHeads: true, slides: allLayers, more: mixtral},
	"qwen2":       {eps: 1e-6, askHeads: true, bias: qkvAlways, slides: lateOnes, window: 4096, optional: true},
	"qwen3":       {eps: 1e-6, askHeads: true, headDim: 128, bias: saidBias, qkNorm: headNorm, slides: lateOnes, window: 4096, optional: true},
	"qwen3_moe":   {eps: 1e-6, askHeads: true, bias: saidBias, qkNorm: headNorm, slides: allLayers, window: 4096, optional: true, more: qwen3MoE},
	"smollm3":     {eps: 1e-6, askHeads: true, tied: true, bias: saidBias, slides: unrotated, optional: true, more: mlpBias},
	"phi3":        {eps: 1e-5, slides: allLayers, fused: true},
	"gemma":       {eps: 1e-6, headDim: 256, tied: true, bias: saidBias, act: "gelu_pytorch_tanh", renamed: true, onePlus: true, more: gemma},
	"gemma2":      {eps: 1e-6, askHeads: true, headDim: 256, tied: true, bias: saidBias, act: "gelu_pytorch_tanh", renamed: true, onePlus: true, places: around, slides: evenOnes, window: 4096, more: gemma2},
	"gemma3_text": {eps: 1e-6, askHeads: true, headDim: 256, tied: true, bias: saidBias, act: "gelu_pytorch_tanh", renamed: true, onePlus: true, places: around, qkNorm: headNorm, slides: mostOnes, window: 4096, pattern: 6, more: gemma3},
	"olmo2":       {eps: 1e-5, bias: saidBias, places: after, qkNorm: wholeNorm},
	"olmo3":       {eps: 1e-5, bias: saidBias, places: after, qkNorm: wholeNorm, slides: mostOnes, window: 4096, pattern: 4},
	"granite":     {eps: 1e-6, bias: saidBias, more: granite},
	"gpt_oss":     {eps: 1e-5, askHeads: true, headDim: 64, slides: evenOnes, window: 128, more: gptOSS},
	"deepseek_v3": {eps: 1e-6, more: deepseekV3},
	"kimi_k2":     {eps: 1e-6, more: deepseekV3},

	"seed_oss":         {eps: 1e-6, askHeads: true, headDim: 128, more: seedOSS},
	"exaone4":          {eps: 1e-5, askHeads: true, places: after, qkNorm: headNorm, slides: mostOnes, window: 4096, pattern: 4},
	"hunyuan_v1_dense": {eps: 1e-5, bias: saidBias, qkNorm: lateNorm},
	"ministral3":       {eps: 1e-5, askHeads: true, headDim: 128, slides: allLayers, more: ministral3},
	"starcoder2":       {eps: 1e-5, epsKey: "norm_epsilon", askHeads: true, tied: true, slides: allLayers, act: "gelu_pytorch_tanh", more: starcoder2},
	"stablelm":         {eps: 1e-5, epsKey: "layer_norm_eps", askHeads: true, split: true, more: stableLM},
	"cohere":           {eps: 1e-5, epsKey: "layer_norm_eps", tied: true, bias: saidBias, places: sideBySide, more: cohere},
	"cohere2":          {eps: 1e-5, epsKey: "layer_norm_eps", tied: true, bias: saidBias, places: sideBySide, slides: mostOnes, window: 4096, pattern: 4, more: cohere},
	"glm4":             {eps: 1.5625e-7, askHeads: true, headDim: 128, places: around, more: glm4},

	"bamba":            {eps: 1e-5, askHeads: true, more: bamba},
	"granitemoehybrid": {eps: 1e-6, bias: saidBias, more: graniteHybrid},
	"nemotron_h":       {eps: 1e-5, epsKey: "layer_norm_epsilon", rms: true, askHeads: true, headDim: 128, bias: saidBias, layers: nemotronLayers, more: nemotronH},
	"falcon_h1":        {eps: 1e-5, askHeads: true, bias: saidBias, more: falconH1},
	"jamba":            {eps: 1e-6, askHeads: true, more: jamba},

	"qwen3_next":       qwen35(qwen3Next),
	"qwen3_5":          qwen35(nil),
	"qwen3_5_text":     qwen35(nil),
	"qwen3_5_moe":      qwen35(qwen35MoE),
	"qwen3_5_moe_text": qwen35(qwen35MoE),
	"kimi_linear":      {eps: 1e-6, more: kimiLinear},
	"olmo_hybrid":      {eps: 1e-6, bias: saidBias, places: after, qkNorm: wholeNorm, more: olmoHybrid},
}

func seedOSS(s *Shape, f section) {
	mlpBias(s, f)
	s.qkvBias, s.outBias = f.flag("attention_bias", true), f.flag("attention_out_bias", false)
}

func ministral3(s *Shape, f section) {
	key, beta := f.either("rope_parameters", "rope_scaling"), 0.0
	if !f.has(key) {
		beta = 0.1
	}
	p := f.sub(key)
	s.heat = temperature{float64(p.number("llama_4_scaling_beta", beta)), int64(p.count("original_max_position_embeddings", 16384, 1<<30))}
	if s.heat.original == 0 {
		f.fail("original_max_position_embeddings is 0")
	}
}

func starcoder2(s *Shape, f section) {
	bias := f.flag("use_bias", true)
	s.plain, s.normBias, s.qkvBias, s.outBias, s.mlpBias = true, true, bias, bias, bias
	if s.act != dense.GELUTanh {
		f.fail("hidden_act of an MLP without a gate, want gelu_pytorch_tanh")
	}
}

func stableLM(s *Shape, f section) {
	s.normBias, s.qkvBias = true, f.flag("use_qkv_bias", false)
	if f.flag("use_parallel_residual", false) {
		s.places = sideBySide
	}
	if f.flag("qk_layernorm", false) {
		f.fail("qk_layernorm is set, which is not supported")
	}
}

func cohere(s *Shape, f section) {
	s.outScale = f.number("logit_scale", 0.0625)
	if f.flag("use_qk_norm", false) {
		s.qkNorm = ownNorm
	}
}

func glm4(s *Shape, f section) {
	s.qkvBias, s.fusedMLP = f.flag("attention_bias", true), true
}

func mlpBias(s *Shape, f section) { s.mlpBias = f.flag("mlp_bias", false) }

func granite(s *Shape, f section) {
	mlpBias(s, f)
	s.embScale, s.resScale = f.number("embedding_multiplier", 1), f.number("residual_multiplier", 1)
	s.scale = f.number("attention_multiplier", 1)
	s.outScale = 1 / f.number("logits_scaling", 1)
}

func gemma(s *Shape, f section) { s.embScale = sqrt(s.Dim) }

func gemma2(s *Shape, f section) {
	gemma3(s, f)
	cap := func(key string, otherwise float64) float32 {
		if f.null(key) {
			return 0
		}
		return f.number(key, otherwise)
	}
	s.softcap, s.outCap = cap("attn_logit_softcapping", 50), cap("final_logit_softcapping", 30)
}

func gemma3(s *Shape, f section) {
	s.embScale = sqrt(s.Dim)
	s.scale = 1 / sqrt32(f.number("query_pre_attn_scalar", 256))
	s.outCap = f.number("final_logit_softcapping", 0)
}

// everyLayer are n layers with experts.
func everyLayer(n int) []bool {
	list := make([]bool, n)
	for i := range list {
		list[i] = true
	}
	return list
}

func mixtral(s *Shape, f section) {
	s.Experts = &Experts{
		Count: f.must(f.either("num_local_experts", "num_experts"), mostExperts), TopK: f.must("num_experts_per_tok", mostExperts),
		Inner: s.Inner, Sparse: everyLayer(s.Layers), normalise: true,
	}
}

func qwen3MoE(s *Shape, f section) {
	key := f.either("num_experts", "num_local_experts")
	if f.has(key) && f.count(key, 0, mostExperts) == 0 {
		return
	}
	e := &Experts{
		Count: f.must(key, mostExperts), TopK: f.must("num_experts_per_tok", mostExperts), Inner: f.must("moe_intermediate_size", mostWide),
		Sparse: make([]bool, s.Layers), normalise: f.flag("norm_topk_prob", false),
	}
	step := max(f.count("decoder_sparse_step", 1, mostLayers), 1)
	for i := range e.Sparse {
		e.Sparse[i] = (i+1)%step == 0
	}
	for _, i := range f.counts("mlp_only_layers", mostLayers) {
		if i < s.Layers {
			e.Sparse[i] = false
		}
	}
	s.Experts = e
}

func gptOSS(s *Shape, f section) {
	bias := f.flag("attention_bias", true)
	s.sinks, s.qkvBias, s.outBias, s.mlpBias = true, bias, bias, true
	s.act, s.limit = dense.ClampedSiLU, f.number("swiglu_limit", 7)
	s.Experts = &Experts{
		Count: f.must(f.either("num_local_experts", "num_experts"), mostExperts), TopK: f.must(f.either("num_experts_per_tok", "experts_per_token"), mostExperts),
		Inner: s.Inner, Sparse: everyLayer(s.Layers), router: softmaxLast, interlaced: true,
	}
}

func deepseekV3(s *Shape, f section) {
	if f.flag("attention_bias", false) {
		f.fail("attention_bias is set, which latent attention has no place for")
	}
	s.readLatent(f, 1536)
	s.scale = float32(float64(1/sqrt(s.Latent.NopeDim+s.Latent.RopeDim)) * s.Rotations[0].SoftmaxFactor())
	for key, want := range map[string]string{"scoring_func": "sigmoid", "topk_method": "noaux_tc"} {
		if got := f.text(key, want); got != want {
			f.fail("%s is %q, want %q", key, got, want)
		}
	}
	e := &Experts{
		Count: f.must(f.either("n_routed_experts", "num_local_experts"), mostExperts), TopK: f.must("num_experts_per_tok", mostExperts),
		Inner: f.must("moe_intermediate_size", mostWide), Sparse: s.sparseFrom(f, 3),
	}
	e.Shared = f.orNone("n_shared_experts", 1, 0, mostExperts) * e.Inner
	s.readGroups(f, e, grouping{scale: 2.5, groups: 8, used: 4})
}

// readLatent reads the widths of latent attention; rank is that of queries where no key says.
func (s *Shape) readLatent(f section, rank int) {
	s.Latent = &Latent{
		QRank: f.orNone("q_lora_rank", rank, 0, mostWide), KVRank: f.must("kv_lora_rank", mostWide), NopeDim: f.must("qk_nope_head_dim", mostHeadDim),
		RopeDim: f.must("qk_rope_head_dim", mostHeadDim), ValueDim: f.must("v_head_dim", mostHeadDim),
	}
}

// sparseFrom returns which layers have experts, by where they begin and how often they come.
func (s *Shape) sparseFrom(f section, first int) []bool {
	first, freq := f.count("first_k_dense_replace", first, mostLayers), max(f.count("moe_layer_freq", 1, mostLayers), 1)
	list := make([]bool, s.Layers)
	for i := range list {
		list[i] = i >= first && i%freq == 0
	}
	return list
}

// grouping is what readGroups takes where no key says otherwise.
type grouping struct {
	scale        float64
	groups, used int
}

// readGroups reads how experts in groups are chosen by sigmoids, as DeepSeek-V3 does.
func (s *Shape) readGroups(f section, e *Experts, otherwise grouping) {
	e.router, e.normalise, e.scale = sigmoids, f.flag(f.either("norm_topk_prob", "moe_renormalize"), true), f.number("routed_scaling_factor", otherwise.scale)
	e.groups = max(f.orNone(f.either("n_group", "num_expert_group"), otherwise.groups, 1, mostExperts), 1)
	e.groupsUsed = max(f.orNone("topk_group", otherwise.used, 1, mostExperts), 1)
	switch {
	case e.Count%e.groups != 0 || e.groupsUsed > e.groups || e.groups > 1 && e.Count/e.groups < 2:
		f.fail("%d experts in n_group = %d groups, of which topk_group = %d are used", e.Count, e.groups, e.groupsUsed)
	case e.TopK > e.Count/e.groups*e.groupsUsed:
		f.fail("num_experts_per_tok is %d, of %d experts in %d groups", e.TopK, e.Count/e.groups, e.groupsUsed)
	}
	s.Experts = e
}
