// Package parallel runs the tasks of an operator on a bounded number of
// goroutines. There is no pool: goroutines begin with a call and end with it.
package parallel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Workers returns how many goroutines a Workers setting stands for: n itself,
// or GOMAXPROCS for 0.
func Workers(n int) int {
	if n == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// Choose returns how many goroutines the Workers of a call and of a Config stand for: the
// call's, or where that is 0 the Config's.
func Choose(config, call int) int {
	if call == 0 {
		call = config
	}
	return Workers(call)
}

// Find returns which of n things a task belongs to, whose tasks begin at first(i) and
// end where the next one's begin.
func Find(n, task int, first func(i int) int) int {
	lo, hi := 0, n
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; first(mid) <= task {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// Group runs sets of tasks, one after the other. It is made once and kept with
// an operator's scratch, so that running allocates nothing. It must not be
// copied nor used by two goroutines at once.
type Group struct {
	task func(worker, i int)

	ctx     context.Context
	n       int64        // how many tasks there are
	share   int          // how many goroutines each of them may use
	next    atomic.Int64 // the first that has not begun
	workers atomic.Int64 // how many goroutines have begun
	failed  atomic.Bool  // err is set: begin no more tasks
	mu      sync.Mutex
	err     error // the first error
	wg      sync.WaitGroup
	spawn   func() // what a goroutine of the group's own does
}

// Run calls task(worker, i) for every i in [0, n), on up to workers goroutines,
// the caller's among them; worker < workers tells them apart, for scratch.
// Tasks begin in order, and results must not depend on which worker runs which.
//
// A panic in a task becomes an error, as does the end of a worker's goroutine
// (runtime.Goexit), and a done context ctx.Err() itself; in each case tasks that have
// not begun are left out, and Run returns when the others have ended. task should be a
// func value that is kept: a closure made for the call is an allocation.
func (g *Group) Run(ctx context.Context, workers, n int, task func(worker, i int)) error {
	if err := ctx.Err(); err != nil || n <= 0 {
		return err
	}
	if g.spawn == nil {
		g.spawn = func() { defer g.wg.Done(); g.work() }
	}
	g.task, g.ctx, g.n, g.err = task, ctx, int64(n), nil
	g.share = max(workers/n, 1)
	g.next.Store(0)
	g.workers.Store(0)
	g.failed.Store(false)
	workers = min(workers, n)
	g.wg.Add(workers - 1)
	for range workers - 1 {
		go g.spawn()
	}
	g.lead()
	err := g.err
	g.task, g.ctx, g.err = nil, nil, nil
	return err
}

// RunAs is Run for an operator of a package, with whose name an error begins. The end of
// ctx stays what it is.
func (g *Group) RunAs(ctx context.Context, pkg string, workers, n int, task func(worker, i int)) error {
	err := g.Run(ctx, workers, n, task)
	if err == nil || err == ctx.Err() {
		return err
	}
	return fmt.Errorf("%s: %w", pkg, err)
}

// lead works on the caller's goroutine and waits for the others, even where a task ends
// that goroutine: nobody may use the scratch while they do.
func (g *Group) lead() {
	defer g.wg.Wait()
	g.work()
}

// Stopped tells a task of more than a few milliseconds that it may leave the rest of
// its work undone: the context is done, or another task has failed. Run then returns the
// error. A nil Group is never stopped.
func (g *Group) Stopped() bool {
	if g == nil || g.ctx == nil {
		return false
	}
	if err := g.ctx.Err(); err != nil {
		g.fail(err)
	}
	return g.failed.Load()
}

// Share returns how many goroutines a task may use: those that Run was given and has no
// tasks for. It is 1 of a nil Group.
func (g *Group) Share() int {
	if g == nil || g.ctx == nil {
		return 1
	}
	return g.share
}

// Divide runs n parts of a task of g on as many goroutines as its Share, as another group,
// which is not one of g's. Where a part fails or the context ends g's Run returns the error.
func (g *Group) Divide(other *Group, n int, part func(worker, i int)) {
	if err := other.Run(g.ctx, g.share, n, part); err != nil {
		g.fail(err)
	}
}

func (g *Group) work() {
	ended := false
	defer func() {
		if p := recover(); p != nil {
			g.fail(fmt.Errorf("panic in a worker: %v", p))
		} else if !ended {
			g.fail(errors.New("a worker's goroutine ended within a task (runtime.Goexit)"))
		}
	}()
	worker := int(g.workers.Add(1)) - 1
	for !g.failed.Load() {
		i := g.next.Add(1) - 1
		if i >= g.n {
			break
		}
		if err := g.ctx.Err(); err != nil {
			g.fail(err)
			break
		}
		g.task(worker, int(i))
	}
	ended = true
}

// fail keeps the first error and stops the others.
func (g *Group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	g.failed.Store(true)
}
