package transformer

import "github.com/subquad/subquad/rope"

// qwen35 is what Qwen3-Next and Qwen3.5 have in common: attention with a gate, norms by 1+w,
// and a gated delta rule in most layers. more reads their experts.
func qwen35(experts func(s *Shape, f section)) modelType {
	return modelType{
		eps: 1e-6, askHeads: true, noInner: true, headDim: 256, bias: saidBias, qkNorm: headNorm, onePlus: true,
		more: func(s *Shape, f section) {
			s.outGate = true
			s.Delta = &Delta{
				Heads: f.must("linear_num_value_heads", mostHeads), KeyHeads: f.must("linear_num_key_heads", mostHeads),
				KeyDim: f.must("linear_key_head_dim", mostHeadDim), ValueDim: f.must("linear_value_head_dim", mostHeadDim),
				Taps: f.must("linear_conv_kernel_dim", mostHeads),
			}
			if !divides(s.Delta.Heads, s.Delta.KeyHeads) {
				f.fail("linear_num_value_heads is %d, no multiple of linear_num_key_heads = %d", s.Delta.Heads, s.Delta.KeyHeads)
			}
			if s.readKinds(f, "layer_types") == nil {
				s.everyKind(Recurrence)
				interval := f.count("full_attention_interval", 4, mostLayers)
				for i := range s.Kinds {
					if interval > 0 && (i+1)%interval == 0 {
						s.Kinds[i] = Attention
					}
				}
			}
			if experts != nil {
				experts(s, f)
			}
			for i := range s.Layers {
				if !s.sparse(i) && s.Inner == 0 {
					f.fail("no intermediate_size, which layer %d has no experts without", i)
					return
				}
			}
		},
	}
}

// qwen3Next: experts, and an MLP that all tokens take with a gate of its own.
func qwen3Next(s *Shape, f section) {
	qwen3MoE(s, f)
	if s.Experts != nil {
		s.Experts.Shared, s.Experts.sharedGate = f.must("shared_expert_intermediate_size", mostWide), true
		s.Experts.normalise = f.flag("norm_topk_prob", true)
	}
}

// qwen35MoE: the same, and the weights of the chosen always sum to 1.
func qwen35MoE(s *Shape, f section) {
	if qwen3Next(s, f); s.Experts != nil {
		s.Experts.normalise = true
	}
}

// kimiLinear: Kimi Delta Attention in most layers, latent attention without positions in the
// others, experts as DeepSeek-V3 has them.
func kimiLinear(s *Shape, f section) {
	linear := f.sub("linear_attn_config")
	heads := linear.must("num_heads", mostHeads)
	s.Delta = &Delta{
		Heads: heads, KeyHeads: heads, KeyDim: linear.must("head_dim", mostHeadDim), Taps: linear.must("short_conv_kernel_size", mostHeads), ByChannel: true,
	}
	s.Delta.ValueDim = s.Delta.KeyDim
	s.everyKind(Recurrence)
	if !linear.has("full_attn_layers") {
		f.fail("linear_attn_config has no full_attn_layers")
	}
	for _, i := range linear.counts("full_attn_layers", mostLayers) { // from 1 on
		if i >= 1 && i <= s.Layers {
			s.Kinds[i-1] = Attention
		}
	}
	for _, key := range []string{"gate_lower_bound", "mla_use_output_gate", "attn_res_block_size", "routed_expert_hidden_size"} {
		for _, at := range []section{f, linear} {
			if v := string(at.values[key]); at.has(key) && v != "false" && v != "0" {
				f.fail("%s is set, which is not read", key)
			}
		}
	}
	s.readLatent(f, 0)
	s.scale = 1 / sqrt(s.Latent.NopeDim+s.Latent.RopeDim)
	count := f.count(f.either("num_experts", "n_routed_experts"), 0, mostExperts)
	if count == 0 {
		return
	}
	if got := f.text("moe_router_activation_func", "sigmoid"); got != "sigmoid" {
		f.fail("moe_router_activation_func is %.100q, want sigmoid", got)
	}
	e := &Experts{
		Count: count, TopK: f.must(f.either("num_experts_per_token", "num_experts_per_tok"), mostExperts), Inner: f.must("moe_intermediate_size", mostWide),
		Sparse: s.sparseFrom(f, 0),
	}
	e.Shared = f.count(f.either("num_shared_experts", "n_shared_experts"), 0, mostExperts) * e.Inner
	s.readGroups(f, e, grouping{scale: 1, groups: 1, used: 1})
	if e.groups > 1 && !f.flag("use_grouped_topk", true) {
		f.fail("use_grouped_topk is false, of num_expert_group = %d groups", e.groups)
	}
}

// olmoHybrid: Gated DeltaNet with norms before it, and attention of OLMo's kind with norms
// after it, which rotates only where the file has a base.
func olmoHybrid(s *Shape, f section) {
	s.mixed = true
	heads := func(key string) int {
		if !f.has(key) {
			return s.Heads
		}
		return f.must(key, mostHeads)
	}
	d := &Delta{
		Heads: heads("linear_num_value_heads"), KeyHeads: heads("linear_num_key_heads"), Taps: f.count("linear_conv_kernel_dim", 4, mostHeads),
		eps: 1e-5, negative: f.flag("linear_allow_neg_eigval", true),
	}
	d.KeyDim = f.count("linear_key_head_dim", 3*s.Dim/(4*max(d.KeyHeads, 1)), mostHeadDim)
	d.ValueDim = f.count("linear_value_head_dim", 2*d.KeyDim, mostHeadDim)
	if d.KeyDim < 1 || d.ValueDim < 1 || d.Taps < 1 || !divides(d.Heads, d.KeyHeads) {
		f.fail("recurrent blocks of %d and %d heads, %d and %d wide, with %d taps: want 1 or more of each, and a multiple", d.Heads, d.KeyHeads, d.ValueDim, d.KeyDim, d.Taps)
	}
	s.Delta = d
	if s.readKinds(f, "layer_types") == nil {
		s.everyKind(Recurrence)
		for i := range s.Kinds {
			if i%4 == 3 {
				s.Kinds[i] = Attention
			}
		}
		if s.Layers < 4 {
			s.Kinds[s.Layers-1] = Attention
		}
	}
	if !f.has("rope_theta") && !f.sub("rope_parameters").has("rope_theta") {
		for i := range s.Rotations {
			s.Rotations[i] = rope.Config{None: true, HeadDim: s.HeadDim}
		}
	}
}
