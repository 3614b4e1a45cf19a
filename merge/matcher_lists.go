package merge

import "context"

// lists divides the tokens of every sequence.
func (r *matchRun) lists(ctx context.Context) error {
	r.src, r.dst, r.head, r.tail = r.src[:0], r.dst[:0], r.head[:0], r.tail[:0]
	r.from, r.cand = r.from[:0], r.cand[:0]
	if r.m.cfg.Method.energetic() {
		if err := r.energies(ctx); err != nil {
			return err
		}
	}
	for i := range r.seqs {
		s := &r.seqs[i]
		s.src.from, s.dst.from, s.head.from, s.tail.from = len(r.src), len(r.dst), len(r.head), len(r.tail)
		s.froms.from, s.can.from = len(r.from), len(r.cand)
		if !r.m.cfg.Method.energetic() {
			r.divide(s)
		} else if err := r.byEnergy(i, s); err != nil {
			return err
		}
		s.src.to, s.dst.to, s.head.to, s.tail.to = len(r.src), len(r.dst), len(r.head), len(r.tail)
		for _, t := range s.src.of(r.src) {
			if r.inverse[t] != 0 {
				r.from = append(r.from, t)
			}
		}
		for _, t := range s.dst.of(r.dst) {
			if r.inverse[t] != 0 {
				r.cand = append(r.cand, t)
			}
		}
		s.froms.to, s.can.to = len(r.from), len(r.cand)
	}
	return nil
}

// divide makes the lists of one sequence.
func (r *matchRun) divide(s *sequence) {
	cfg := &r.m.cfg
	switch cfg.Method {
	case ToMe, Local:
		from := s.from
		if r.call.Shift && from < s.to {
			r.head = append(r.head, int32(from))
			from++
		}
		for t := from; t < s.to; t++ {
			if (t-from)%2 == 0 {
				r.src = append(r.src, int32(t))
			} else {
				r.dst = append(r.dst, int32(t))
			}
		}
	case KTh:
		whole := s.from + (s.to-s.from)/cfg.Every*cfg.Every
		for t := s.from; t < s.to; t++ {
			switch {
			case t >= whole:
				r.tail = append(r.tail, int32(t))
			case (t-s.from)%cfg.Every == cfg.Every-1:
				r.dst = append(r.dst, int32(t))
			default:
				r.src = append(r.src, int32(t))
			}
		}
	case Grid:
		from := s.from
		if cfg.ClassToken {
			r.head = append(r.head, int32(from))
			from++
		}
		rows, cols := cfg.Height/cfg.CellHeight*cfg.CellHeight, cfg.Width/cfg.CellWidth*cfg.CellWidth
		for t := from; t < s.to; t++ {
			y, x := (t-from)/cfg.Width, (t-from)%cfg.Width
			if y < rows && x < cols && y%cfg.CellHeight == 0 && x%cfg.CellWidth == 0 {
				r.dst = append(r.dst, int32(t))
			} else {
				r.src = append(r.src, int32(t))
			}
		}
	case Given:
		for _, t := range r.call.Sources {
			r.src = append(r.src, int32(t))
		}
		for _, t := range r.call.Destinations {
			r.dst = append(r.dst, int32(t))
		}
		for t, seen := range r.seen {
			if !seen {
				r.head = append(r.head, int32(t))
			}
		}
	}
}
