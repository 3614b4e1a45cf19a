package transformer

import (
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
)

// layer makes a layer of a prefix.
func (c *checkpoint) layer(i int, prefix string) lm.Layer {
	s := c.shape
	if s.bare {
		return c.bareLayer(i, prefix)
	}
	att, mlp := lm.Branch{Scale: s.resScale}, lm.Branch{Scale: s.resScale}
	norm := func(name string) dense.Norm { return c.norm(prefix+name+".", s.Dim) }
	places := s.places
	if s.mixed && s.kind(i) != Attention {
		places = before
	}
	switch places {
	case before:
		att.Norm, mlp.Norm = norm("input_layernorm"), norm("post_attention_layernorm")
	case after:
		att.Post, mlp.Post = norm("post_attention_layernorm"), norm("post_feedforward_layernorm")
	case sideBySide:
		att.Norm, mlp.Parallel = norm("input_layernorm"), true
	case around:
		names := [3]string{"post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}
		if s.ModelType == "glm4" {
			names = [3]string{"post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"}
		}
		att.Norm, att.Post = norm("input_layernorm"), norm(names[0])
		mlp.Norm, mlp.Post = norm(names[1]), norm(names[2])
	}
	mlp.MLP = c.feedForward(i, prefix+"mlp.")
	if s.kind(i) == SideBySide {
		second := att
		att.Mixer, second.Mixer, second.Norm, second.Parallel = c.block(prefix+"mamba."), c.attention(i, prefix+"self_attn."), dense.Norm{}, true
		return lm.Layer{att, second, mlp}
	}
	att.Mixer = c.tokenMixer(i, prefix)
	return lm.Layer{att, mlp}
}

// bareLayer makes a layer that has one branch, of a prefix.
func (c *checkpoint) bareLayer(i int, prefix string) lm.Layer {
	b := lm.Branch{Norm: c.norm(prefix+"input_layernorm.", c.shape.Dim)}
	if c.shape.kind(i) == Alone {
		b.MLP = c.feedForward(i, prefix+"mixer.")
	} else {
		b.Mixer = c.tokenMixer(i, prefix)
	}
	return lm.Layer{b}
}

// feedForward makes the MLP of layer i, or its experts.
func (c *checkpoint) feedForward(i int, prefix string) lm.MLP {
	s := c.shape
	switch {
	case s.sparse(i):
		return c.experts(prefix)
	case s.fusedMLP && !s.fused && s.Mamba != nil: // what all tokens take in Granite 4
		prefix += "shared_experts."
	}
	return c.gated(prefix, s.Dim, s.Inner)
}

// tokenMixer makes the mixer of layer i.
func (c *checkpoint) tokenMixer(i int, prefix string) lm.Mixer {
	s := c.shape
	attention, block := prefix+"self_attn.", prefix+"mamba."
	if s.bare {
		attention, block = prefix+"mixer.", prefix+"mixer."
	}
	switch {
	case s.kind(i) == Attention:
		return c.attention(i, attention)
	case s.Delta == nil:
		return c.block(block)
	case s.Delta.ByChannel:
		return c.kda(attention)
	}
	return c.gatedDelta(prefix + "linear_attn.")
}

// attention makes the attention of layer i.
func (c *checkpoint) attention(i int, prefix string) lm.Streamer {
	rotation := c.shape.Rotations[i]
	if c.cfg.Rope != nil {
		rotation = c.cfg.Rope(i, rotation)
	}
	if c.shape.Latent != nil {
		return c.latentMixer(prefix, rotation)
	}
	return c.mixer(i, prefix, c.shape.Windows[i], rotation)
}
