package parallel

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	var g Group
	for _, workers := range []int{1, 2, 3, 8} {
		for _, n := range []int{0, 1, 2, 7, 100} {
			done := make([]atomic.Int32, n)
			busy := make([]atomic.Int32, workers)
			err := g.Run(context.Background(), workers, n, func(worker, i int) {
				if busy[worker].Add(1) != 1 {
					t.Errorf("worker %d runs two tasks at once", worker)
				}
				done[i].Add(1)
				runtime.Gosched()
				busy[worker].Add(-1)
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range done {
				if c := done[i].Load(); c != 1 {
					t.Errorf("%d workers, %d tasks: task %d ran %d times", workers, n, i, c)
				}
			}
		}
	}
}

func TestPanic(t *testing.T) {
	var g Group
	for _, workers := range []int{1, 4} {
		var ran atomic.Int32
		err := g.Run(context.Background(), workers, 1000, func(_, i int) {
			ran.Add(1)
			if i == 3 {
				panic("too hot")
			}
		})
		if err == nil || !strings.Contains(err.Error(), "too hot") {
			t.Errorf("%d workers: error %v", workers, err)
		}
		if workers == 1 && ran.Load() != 4 {
			t.Errorf("%d tasks ran after a panic in the fourth", ran.Load())
		}
		if err := g.Run(context.Background(), workers, 10, func(_, _ int) {}); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	}
}

func TestCancel(t *testing.T) {
	var g Group
	ctx, cancel := context.WithCancel(context.Background())
	var ran int
	err := g.Run(ctx, 1, 10, func(_, i int) {
		ran++
		if i == 4 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || ran != 5 {
		t.Errorf("%d tasks ran, error %v", ran, err)
	}
	if err := g.Run(ctx, 1, 10, func(_, _ int) { t.Error("ran after the context ended") }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestGoexit: a task that ends its goroutine gives an error, and where it ends the
// caller's, the others have ended before.
func TestGoexit(t *testing.T) {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		var g Group
		var busy atomic.Int32
		defer func() {
			if n := busy.Load(); n != 0 {
				t.Errorf("%d tasks run after Run", n)
			}
		}()
		var started sync.WaitGroup
		started.Add(2)
		done <- g.Run(context.Background(), 2, 2, func(_, i int) {
			busy.Add(1)
			defer busy.Add(-1)
			started.Done()
			started.Wait() // one task on each goroutine
			if i == 1 {    // on either goroutine
				runtime.Goexit()
			}
			time.Sleep(10 * time.Millisecond)
		})
	}()
	err, returned := <-done
	if returned && (err == nil || !strings.Contains(err.Error(), "Goexit")) {
		t.Errorf("error %v", err)
	}
}

// TestStopped: a long task learns of the end of the context, and so does the caller.
func TestStopped(t *testing.T) {
	var g Group
	ctx, cancel := context.WithCancel(context.Background())
	stopped := false
	err := g.Run(ctx, 1, 1, func(_, _ int) {
		cancel()
		stopped = g.Stopped()
	})
	if !stopped || err != context.Canceled {
		t.Errorf("stopped %v, error %v", stopped, err)
	}
	if (*Group)(nil).Stopped() || g.Stopped() {
		t.Error("stopped without a run")
	}
}

func TestNothingLeft(t *testing.T) {
	var g Group
	before := runtime.NumGoroutine()
	for range 100 {
		g.Run(context.Background(), 8, 16, func(_, _ int) {})
	}
	for range 1000 { // goroutines end a moment after Wait
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func TestAllocations(t *testing.T) {
	var g Group
	var sum atomic.Int64
	task := func(_, i int) { sum.Add(int64(i)) }
	ctx := context.Background()
	// AllocsPerRun sets GOMAXPROCS to 1; the workers are asked for all the same.
	if n := testing.AllocsPerRun(100, func() { g.Run(ctx, 4, 8, task) }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func BenchmarkRun(b *testing.B) {
	var g Group
	task := func(_, _ int) {}
	b.ReportAllocs()
	for b.Loop() {
		g.Run(context.Background(), 2, 2, task)
	}
}

// TestShare: tasks that are fewer than the workers may use the others, and what fails there
// fails the whole.
func TestShare(t *testing.T) {
	var none *Group
	if none.Share() != 1 {
		t.Errorf("no group has a share of %d", none.Share())
	}
	for _, c := range []struct{ workers, tasks, want int }{{1, 1, 1}, {4, 1, 4}, {5, 2, 2}, {4, 4, 1}, {2, 9, 1}} {
		var g, other Group
		var ran atomic.Int64
		part := func(_, i int) { ran.Add(int64(i)) }
		one := make([]Group, c.tasks)
		err := g.Run(context.Background(), c.workers, c.tasks, func(_, i int) {
			if g.Share() != c.want {
				t.Errorf("%d workers for %d tasks: a share of %d", c.workers, c.tasks, g.Share())
			}
			g.Divide(&one[i], 4, part)
		})
		if err != nil || ran.Load() != int64(6*c.tasks) {
			t.Errorf("error %v, %d of the parts ran", err, ran.Load())
		}
		err = g.Run(context.Background(), 3, 1, func(int, int) { g.Divide(&other, 2, func(int, int) { panic("part") }) })
		if err == nil || !strings.Contains(err.Error(), "part") {
			t.Errorf("error %v of a part that panics", err)
		}
	}
}
