package program

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// patience is how long a run may take before a bar is shown.
const patience = time.Second

// every is how often it changes, at the most.
const every = 100 * time.Millisecond

// Progress shows a bar for work that takes longer than a second, on a terminal. The zero
// value and nil show nothing.
type Progress struct {
	w     io.Writer // nil where no bar is shown
	unit  string
	name  string
	total int
	done  int
	since time.Time
	shown time.Time // the last change of the bar
	now   func() time.Time
	bar   *progressbar.ProgressBar
}

// NewProgress returns one that counts units, "bases" for instance, or steps where unit is "".
// It shows nothing where w is no terminal.
func NewProgress(w io.Writer, unit string) *Progress {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = nil
	}
	return &Progress{w: w, unit: unit, now: time.Now}
}

// Begin begins a piece of work of that many units.
func (p *Progress) Begin(name string, total int) {
	p.End()
	if p != nil && p.w != nil {
		p.name, p.total, p.done, p.since = name, total, 0, p.now()
	}
}

// Add notes that n more units are done.
func (p *Progress) Add(n int) {
	if p == nil || p.w == nil {
		return
	}
	p.done += n
	if p.bar == nil && p.now().Sub(p.since) > patience {
		p.bar = progressbar.NewOptions(p.total,
			progressbar.OptionSetWriter(p.w), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
			progressbar.OptionClearOnFinish())
	}
	if p.bar != nil && p.now().Sub(p.shown) > every {
		p.shown = p.now()
		_ = p.bar.Set(min(p.done, p.total)) // a bar that cannot be drawn is no reason to stop
		p.bar.Describe(p.describe())
	}
}

// describe returns the name, the rate since the work began, and the time that is left at
// that rate: the bar's own rate begins when it is first shown.
func (p *Progress) describe() string {
	rate := float64(p.done) / p.now().Sub(p.since).Seconds()
	s := p.name
	if p.unit != "" {
		s += fmt.Sprintf("  %.4g %s/s", rate, p.unit)
		if rate >= 1e3 {
			s = fmt.Sprintf("%s  %.0f %s/s", p.name, rate, p.unit)
		}
	}
	if left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)); rate > 0 && left >= 0 {
		s += fmt.Sprintf("  %v left", left.Round(time.Second))
	}
	return s
}

// End takes the bar away.
func (p *Progress) End() {
	if p != nil && p.bar != nil {
		_ = p.bar.Clear() // as above
		p.bar = nil
	}
}
