package delta

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// headPanels is a head's state in the panels of products.
type headPanels struct {
	panels []statePanel
	loaded bool
}

// statePanel is a panel of a state, [K, panel]: where the state is kept, if panels are as
// wide there, or a copy.
type statePanel struct {
	s    []float32
	copy kernel.Matrix
	kept bool
}

// forget leaves the state of a head where it was.
func (h *headPanels) forget() {
	h.loaded = false
	for i := range h.panels[:cap(h.panels)] {
		h.panels[:cap(h.panels)][i].s = nil
	}
}

// eachColumns calls f with panel j of a head's state, [K, panel], and with the parts of its
// values that stand there.
func (op *Recurrence) eachColumns(p piece, head, j int, panel blas32.General, f func(panel, values blas32.General)) {
	width := kernel.PanelCols()
	for at := 0; at < panel.Cols; {
		from := j*width + at
		s := op.panel(p.values, head, from/panelWidth*panelWidth)
		n := min(panel.Cols-at, s.Cols-from%panelWidth)
		f(mat.Columns(panel, at, n), mat.Columns(s, from%panelWidth, n))
		at += n
	}
}

// load brings a head's state into panels, unless it is there.
func (c *chunkWork) load(op *Recurrence, p piece, head int) {
	h := &c.states[p.before+head]
	if h.loaded {
		return
	}
	h.loaded = true
	width := kernel.PanelCols()
	n := (op.cfg.ValueDim + width - 1) / width
	h.panels = h.panels[:cap(h.panels)] // with the memory that they have
	for len(h.panels) < n {
		h.panels = append(h.panels, statePanel{})
	}
	h.panels = h.panels[:n]
	for j := range h.panels {
		panel, cols := &h.panels[j], min(width, op.cfg.ValueDim-j*width)
		if panel.kept = width == panelWidth && cols == width; panel.kept {
			panel.s = op.panel(p.values, head, j*width).Data[:op.cfg.KeyDim*width]
			continue
		}
		panel.copy.Reshape(op.cfg.KeyDim, cols)
		m := panel.copy.Panel(0)
		panel.s = m.Data
		op.eachColumns(p, head, j, m, func(panel, values blas32.General) { mat.Copy(panel, values) })
	}
}

// unload brings the states of a piece's heads back to where they are kept.
func (c *chunkWork) unload(op *Recurrence, p piece) {
	for head := range p.heads {
		c.unloadHead(op, p, head)
	}
}

func (c *chunkWork) unloadHead(op *Recurrence, p piece, head int) {
	h := &c.states[p.before+head]
	if !h.loaded {
		return
	}
	for j := range h.panels {
		if panel := &h.panels[j]; !panel.kept {
			op.eachColumns(p, head, j, panel.copy.Panel(0), func(panel, values blas32.General) { mat.Copy(values, panel) })
		}
	}
	h.forget()
}

// flush sets tiny values of the states of a piece's heads to 0.
func (c *chunkWork) flush(op *Recurrence, p piece) {
	size := op.cfg.KeyDim * op.cfg.ValueDim
	for head := range p.heads {
		h := &c.states[p.before+head]
		if !h.loaded {
			kernel.Flush(p.values[head*size:][:size])
			continue
		}
		for j := range h.panels {
			kernel.Flush(h.panels[j].s)
		}
	}
}
