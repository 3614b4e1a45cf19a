package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows a bar for a record that takes longer than a second, on a terminal.
type progress struct {
	w     io.Writer
	name  string
	total int
	done  int
	since time.Time
	bar   *progressbar.ProgressBar
}

func (p *progress) begin(name string, total int) {
	p.finish()
	p.name, p.total, p.done, p.since = name, total, 0, time.Now()
}

func (p *progress) add(n int) {
	p.done += n
	if p.bar == nil && time.Since(p.since) > time.Second && isTerminal(p.w) {
		p.bar = progressbar.NewOptions(p.total,
			progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(p.name),
			progressbar.OptionShowIts(), progressbar.OptionSetItsString("bases"),
			progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	}
	if p.bar != nil {
		_ = p.bar.Set(p.done) // a bar that cannot be drawn is no reason to stop
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
