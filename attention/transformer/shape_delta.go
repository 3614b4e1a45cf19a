package transformer

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
