package transformer

import "github.com/subquad/subquad/attention/kvcache"

// Endless returns StateConfig.Policies for texts without end in constant memory: attention
// sees the first keep tokens and the last window ones, as with StateConfig.Window and Keep,
// but at positions counted within what it sees, so that no distance is longer than keep +
// window - 1 however long the text is (StreamingLLM; Xiao et al. 2023, arXiv 2309.17453).
// Tokens in the window stand at their own distances; only those to the first tokens differ.
//
//	st, err := m.NewState(transformer.StateConfig{Policies: m.Endless(4, 1020)})
//
// Layers whose own window is not longer than that keep to it, and where queries grow with
// their position (ministral3) it is that within what is seen. Models whose keys are latents
// or are normed after they are rotated (deepseek_v3, hunyuan_v1_dense) can not: their NewState
// says so.
func (m *Model) Endless(keep, window int) func(layer int) *kvcache.Config {
	return func(layer int) *kvcache.Config {
		cfg := &kvcache.Config{Keep: keep, Recent: window, Select: kvcache.Window{}, Evict: kvcache.StreamingLLM{}, Positions: kvcache.InCache}
		if own := m.ownWindow(layer); own > 0 && own <= window {
			cfg.Keep, cfg.Recent = 0, own
		}
		return cfg
	}
}

// SelfExtend returns StateConfig.Policies for texts longer than those of the training, without
// training: attention sees all tokens, the last near ones at their distances and all others by
// groups of group tokens that share a position (Jin et al. 2024, arXiv 2401.01325). A text of n
// tokens has distances of about near + (n-near)/group: choose them so that this is what the
// model was trained on, and near half of it or less.
//
//	st, err := m.NewState(transformer.StateConfig{Policies: m.SelfExtend(8, 1024)})
//
// Layers with a window of their own or without a rotation stay as they are. It is of the models
// that Endless is of.
func (m *Model) SelfExtend(group, near int) func(layer int) *kvcache.Config {
	return func(layer int) *kvcache.Config {
		if m.ownWindow(layer) > 0 || layer < len(m.shape.Rotations) && m.shape.Rotations[layer].None {
			return nil
		}
		return &kvcache.Config{Recent: near, Positions: kvcache.Grouped, GroupSize: group}
	}
}

// ownWindow returns the window that a layer has, 0 for none.
func (m *Model) ownWindow(layer int) int {
	if layer < 0 || layer >= len(m.shape.Windows) {
		return 0
	}
	return m.shape.Windows[layer]
}

// numbered returns the position, among the tokens that its queries see, of a token that came at
// one: that itself unless they are numbered in the cache.
func (c *policyState) numbered(position int64) int64 {
	cfg := c.op.Config()
	if _, streams := cfg.Evict.(kvcache.StreamingLLM); streams && cfg.Positions == kvcache.InCache {
		return min(position, int64(cfg.Keep+cfg.Recent-1))
	}
	return position
}
