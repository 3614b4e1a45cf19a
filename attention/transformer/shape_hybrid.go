package transformer

import (
	"math"
	"slices"

	"github.com/subquad/subquad/internal/weights"
)

// kindNames are what files call the mixers of their layers.
var kindNames = map[string]LayerKind{
	"attention": Attention, "full_attention": Attention,
	"mamba": Recurrence, "linear_attention": Recurrence,
	"hybrid": SideBySide,
	"mlp":    Alone, "moe": Alone,
}

// readKinds reads a list of what stands in each layer, if there is one.
func (s *Shape) readKinds(f section, key string) (names []string) {
	f.decode(key, &names)
	if names == nil {
		return nil
	}
	if len(names) != s.Layers {
		f.fail("%s has %d elements, want num_hidden_layers = %d", key, len(names), s.Layers)
		return nil
	}
	for i, name := range names {
		kind, ok := kindNames[name]
		if !ok {
			f.fail("%s[%d] is %.100q, which is not read", key, i, name)
		}
		s.Kinds = append(s.Kinds, kind)
	}
	return names
}

// layerList is a key of readKinds: files of transformers 5 say layer_types for what was
// layers_block_type.
func layerList(f section) string { return f.either("layers_block_type", "layer_types") }

// everyKind is a kind in all layers.
func (s *Shape) everyKind(kind LayerKind) { s.Kinds = slices.Repeat([]LayerKind{kind}, s.Layers) }

// readMamba reads the widths of Mamba-2 blocks, under the names that begin with mamba_.
func (s *Shape) readMamba(f section, heads, groups, states int) {
	m := &Mamba{
		Heads: f.count("mamba_n_heads", heads, mostWide), Groups: f.count("mamba_n_groups", groups, mostWide),
		States: f.count("mamba_d_state", states, mostWide), Taps: f.count("mamba_d_conv", 4, mostHeads), normGroups: 1,
	}
	m.Inner = f.count("mamba_expand", 2, mostHeads) * s.Dim
	if f.has("mamba_d_ssm") {
		m.Inner = f.must("mamba_d_ssm", mostWide)
	}
	if f.has("mamba_d_head") && string(f.values["mamba_d_head"]) != `"auto"` {
		if d := f.must("mamba_d_head", mostHeadDim); d*m.Heads != m.Inner {
			f.fail("mamba_d_head is %d, of mamba_n_heads = %d heads, want %d channels together", d, m.Heads, m.Inner)
		}
	}
	s.setMamba(f, m, "mamba_n_heads", "mamba_n_groups")
}

// setMamba checks the blocks of Mamba-2 that a file tells of.
func (s *Shape) setMamba(f section, m *Mamba, heads, groups string) {
	for _, field := range []struct {
		name string
		n    int
	}{{"width of the recurrent blocks", m.Inner}, {heads, m.Heads}, {groups, m.Groups}, {"number of states of the recurrent blocks", m.States}, {"number of taps of the recurrent blocks", m.Taps}} {
		if field.n < 1 || field.n > mostWide {
			f.fail("%s is %d, want 1 to %d", field.name, field.n, mostWide)
			return
		}
	}
	switch {
	case !divides(m.Inner, m.Heads):
		f.fail("%s is %d, want a divisor of the %d channels", heads, m.Heads, m.Inner)
	case !divides(m.Heads, m.Groups):
		f.fail("%s is %d, want a divisor of %s = %d", groups, m.Groups, heads, m.Heads)
	}
	s.Mamba = m
	s.readLimit(f, "time_step_limit")
}

// readLimit reads what dt is kept between.
func (s *Shape) readLimit(f section, key string) {
	var limit []weights.Number
	f.decode(key, &limit)
	if limit == nil {
		return
	}
	// dt is a softplus, so that a negative lower limit is none.
	if len(limit) != 2 || !(limit[0] <= limit[1] && limit[0] <= math.MaxFloat32 && limit[1] >= math.SmallestNonzeroFloat32) {
		f.fail("%s is %v, want two numbers, the smaller first and the other above 0", key, limit)
		return
	}
	s.Mamba.dtMin = float32(max(limit[0], 0))
	if limit[1] < math.MaxFloat32 {
		s.Mamba.dtMax = float32(limit[1])
	}
}

// bamba: attention where attn_layer_indices says so, half of each head rotating.
func bamba(s *Shape, f section) {
	s.readMamba(f, 128, 1, 256)
	if s.readKinds(f, layerList(f)) != nil {
		return
	}
	s.everyKind(Recurrence)
	for _, i := range f.counts("attn_layer_indices", mostLayers) {
		if i < s.Layers {
			s.Kinds[i] = Attention
		}
	}
}

// graniteHybrid: Granite's multipliers, and in every layer an MLP that all tokens take, with
// experts besides or not.
func graniteHybrid(s *Shape, f section) {
	granite(s, f)
	s.mlpBias = false
	s.readMamba(f, 128, 1, 256)
	if s.readKinds(f, layerList(f)) == nil {
		s.everyKind(Recurrence)
	}
	s.fusedMLP = true
	wide := f.must("shared_intermediate_size", mostWide)
	count := f.count("num_local_experts", 8, mostExperts)
	if count == 0 {
		s.Inner = wide
		return
	}
	s.Experts = &Experts{
		Count: count, TopK: max(f.count("num_experts_per_tok", 2, mostExperts), 1), Inner: s.Inner, Shared: wide,
		Sparse: everyLayer(s.Layers), router: softmaxLast,
	}
}

// falconH1: attention and Mamba-2 in every layer, and multipliers of what nearly every
// matrix makes, which are multiplied into the weights.
func falconH1(s *Shape, f section) {
	mlpBias(s, f)
	s.everyKind(SideBySide)
	if !f.has("mamba_d_ssm") && !f.null("mamba_d_ssm") {
		f.fail("no mamba_d_ssm")
	}
	if s.readMamba(f, 128, 1, 256); s.Mamba == nil {
		return
	}
	s.Mamba.normGroups = s.Mamba.Groups
	s.Mamba.noNorm, s.Mamba.normFirst = !f.flag("mamba_rms_norm", false), f.flag("mamba_norm_before_gate", true)
	s.embScale, s.outScale = f.number("embedding_multiplier", 1), f.number("lm_head_multiplier", 1)
	in, out, key := f.number("attention_in_multiplier", 1), f.number("attention_out_multiplier", 1), f.number("key_multiplier", 1)
	list := func(key string, n int) []float32 {
		numbers := make([]weights.Number, n)
		for i := range numbers {
			numbers[i] = 1
		}
		f.decode(key, &numbers)
		floats := make([]float32, n)
		for i, v := range numbers {
			if x := float64(v); len(numbers) != n || !(math.Abs(x) <= math.MaxFloat32) {
				f.fail("%s is %v, want %d finite numbers", key, numbers, n)
				return floats
			}
			floats[i] = float32(v)
		}
		return floats
	}
	mlp := list("mlp_multipliers", 2)
	s.folds = map[string]fold{
		"q_proj": {in, 1}, "k_proj": {float32(in * key), key}, "v_proj": {in, 1}, "o_proj": {out, out},
		"gate_proj": {mlp[0], mlp[0]}, "down_proj": {mlp[1], mlp[1]},
	}
	ssmOut := f.number("ssm_out_multiplier", 1)
	s.folds["out_proj"], s.folds["in_proj"] = fold{ssmOut, ssmOut}, fold{f.number("ssm_in_multiplier", 1), 1}
	s.foldIn = list("ssm_multipliers", 5)
}

// jamba: Mamba-1 with norms of dt, B and C, attention in some layers and experts in some.
func jamba(s *Shape, f section) {
	s.Mamba = &Mamba{
		Inner: f.count("mamba_expand", 2, mostHeads) * s.Dim, States: f.count("mamba_d_state", 16, mostWide), Taps: f.count("mamba_d_conv", 4, mostHeads),
		Rank: (s.Dim + 15) / 16,
	}
	if f.has("mamba_dt_rank") && string(f.values["mamba_dt_rank"]) != `"auto"` {
		s.Mamba.Rank = f.must("mamba_dt_rank", mostWide)
	}
	if s.Mamba.Inner < 1 || s.Mamba.Inner > mostWide || s.Mamba.States < 1 || s.Mamba.Taps < 1 {
		f.fail("recurrent blocks of %d channels, %d states and %d taps, want 1 or more of each", s.Mamba.Inner, s.Mamba.States, s.Mamba.Taps)
	}
	if f.has("layers_block_type") || f.has("layer_types") {
		s.readKinds(f, layerList(f))
	} else {
		s.everyKind(Recurrence)
		for i, at := range every(s.Layers, f, "attn_layer", 8, 4) {
			if at {
				s.Kinds[i] = Attention
			}
		}
	}
	if count := f.count("num_experts", 16, mostExperts); count > 1 {
		s.Experts = &Experts{
			Count: count, TopK: max(f.count("num_experts_per_tok", 2, mostExperts), 1), Inner: s.Inner,
			Sparse: every(s.Layers, f, "expert_layer", 2, 1),
		}
	}
}

// every tells of n layers which are those of a period, from an offset on.
func every(n int, f section, name string, period, offset int) []bool {
	period, offset = f.count(name+"_period", period, mostLayers), f.count(name+"_offset", offset, mostLayers)
	list := make([]bool, n)
	if period == 0 || offset >= period {
		f.fail("%s_offset is %d, want less than %s_period = %d", name, offset, name, period)
		return list
	}
	for i := range list {
		list[i] = i%period == offset
	}
	return list
}

// nemotronH: a layer is a Mamba-2, attention, an MLP or experts alone.
func nemotronH(s *Shape, f section) {
	s.bare, s.plain, s.squared = true, true, true
	mlpBias(s, f)
	key := f.either("mamba_n_groups", "n_groups")
	m := &Mamba{
		Heads: f.must("mamba_num_heads", mostWide), Groups: f.count(key, 8, mostWide), States: f.count("ssm_state_size", 128, mostWide),
		Taps: f.count(f.either("mamba_d_conv", "conv_kernel"), 4, mostHeads),
	}
	m.Inner, m.normGroups = m.Heads*f.must("mamba_head_dim", mostHeadDim), m.Groups
	s.setMamba(f, m, "mamba_num_heads", key)
	if s.Mamba != nil { // an older name, which wins
		s.readLimit(f, "mamba_dt_limit")
	}
	if act := f.text("mlp_hidden_act", "relu2"); act != "relu2" {
		f.fail("mlp_hidden_act is %.100q, want relu2", act)
	}
	if act := f.text("mamba_hidden_act", "silu"); act != "silu" {
		f.fail("mamba_hidden_act is %.100q, want silu", act)
	}
	sparse := make([]bool, s.Layers)
	if pattern := f.text("hybrid_override_pattern", ""); pattern != "" {
		kinds := map[rune]LayerKind{'M': Recurrence, '*': Attention, '-': Alone, 'E': Alone}
		if len(pattern) != s.Layers {
			f.fail("hybrid_override_pattern is of %d layers, want num_hidden_layers = %d", len(pattern), s.Layers)
			return
		}
		for i, letter := range pattern {
			kind, ok := kinds[letter]
			if !ok {
				f.fail("hybrid_override_pattern has %q for layer %d, want M, *, - or E", letter, i)
				return
			}
			s.Kinds, sparse[i] = append(s.Kinds, kind), letter == 'E'
		}
	} else if names := s.readKinds(f, layerList(f)); names != nil {
		for i, name := range names {
			sparse[i] = name == "moe"
		}
	} else {
		f.fail("no hybrid_override_pattern and no layers_block_type")
		return
	}
	if !slices.Contains(sparse, true) {
		return
	}
	s.readGroups(f, &Experts{
		Count: f.must(f.either("n_routed_experts", "num_local_experts"), mostExperts), TopK: f.must("num_experts_per_tok", mostExperts),
		Inner: f.must("moe_intermediate_size", mostWide), Latent: f.count("moe_latent_size", 0, mostWide),
		Shared: f.count("moe_shared_expert_intermediate_size", 0, mostWide), Sparse: sparse,
	}, grouping{scale: 1, groups: 1, used: 1})
}

// nemotronLayers returns how many layers a list or a pattern is of.
func nemotronLayers(f section) int {
	var names []string
	f.decode(layerList(f), &names)
	return max(len(f.text("hybrid_override_pattern", "")), len(names))
}
