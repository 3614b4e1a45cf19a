package delta

// chunkWork is the working memory of pieces that are computed by matrix products.
type chunkWork struct{}

func (op *Recurrence) chunked(n int) bool { return false }

func (w *headWork) sweepChunk(op *Recurrence, call *Call, p piece) {}

func (c *chunkWork) begin(op *Recurrence, heads int) {}

func (c *chunkWork) unload(op *Recurrence, p piece) {}

func (c *chunkWork) flush(op *Recurrence, p piece) { flush(p.values, 0) }

func (op *Recurrence) workFloats(tokens, workers int) int64 { return 0 }
