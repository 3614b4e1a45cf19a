package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem/local"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"
)

func TestMain(m *testing.M) {
	flag.Parse()
	log.SetupLogging("error", "text")
	if !testing.Verbose() {
		log.SetLogger(silent{}) // errors that tests ask for
	}
	filesystem.Register("faulty", func(ctx context.Context) filesystem.Interface { return faultyFS{local.New(ctx)} })
	beam.Init()
	if os.Getenv("BEAM_TEST_POOL") != "" {
		servePool()
	}
	os.Exit(m.Run())
}

// servePool makes this process the workers of another one, until that closes its end of the pipe.
func servePool() {
	server, err := extworker.StartLoopback(context.Background(), 0)
	if err != nil {
		panic(err)
	}
	fmt.Println(server.EnvironmentConfig(context.Background()))
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// inOtherProcess has a test's pipelines run in another process than the runner's.
func inOtherProcess(t *testing.T) {
	pool := exec.Command(os.Args[0])
	pool.Env = append(os.Environ(), "BEAM_TEST_POOL=1")
	stdin, stdout := must(pool.StdinPipe())(t), must(pool.StdoutPipe())(t)
	must(0, pool.Start())(t)
	address := strings.TrimSpace(must(bufio.NewReader(stdout).ReadString('\n'))(t))
	kind := *jobopts.EnvironmentType
	*jobopts.EnvironmentType, *jobopts.EnvironmentConfig, *jobopts.WorkerBinary = "EXTERNAL", address, os.Args[0]
	t.Cleanup(func() {
		*jobopts.EnvironmentType, *jobopts.EnvironmentConfig, *jobopts.WorkerBinary = kind, "", ""
		must(0, errors.Join(stdin.Close(), pool.Wait()))(t)
	})
}

type silent struct{}

func (silent) Log(context.Context, log.Severity, int, string) {}

// fault is called by what the tests put into the way of the pipelines: when a file
// faulty://PATH is opened, and when a stand-in for a DoFn begins an element.
func fault() {
	if f := faults.Load(); f != nil {
		(*f)()
	}
}

var faults atomic.Pointer[func()]

func withFault(t *testing.T, f func()) {
	faults.Store(&f)
	t.Cleanup(noFault)
}

func noFault() { faults.Store(nil) }

// faultyFS has the local files under faulty://.
type faultyFS struct{ filesystem.Interface }

func (fs faultyFS) List(ctx context.Context, glob string) ([]string, error) {
	list, err := fs.Interface.List(ctx, strings.TrimPrefix(glob, "faulty://"))
	for i := range list {
		list[i] = "faulty://" + list[i]
	}
	return list, err
}

func (fs faultyFS) OpenRead(ctx context.Context, path string) (io.ReadCloser, error) {
	fault()
	return fs.Interface.OpenRead(ctx, strings.TrimPrefix(path, "faulty://"))
}

// onceAfter returns a function that panics once, when it is called for the n-th time.
func onceAfter(n int) func() {
	var calls struct {
		sync.Mutex
		n int
	}
	return func() {
		calls.Lock()
		defer calls.Unlock()
		if calls.n++; calls.n == n {
			panic("fails on the first try")
		}
	}
}

// inTwo returns a function of which the first call waits for a second one: as elements of a bundle
// are processed one after the other, it ends where a runner has divided them, and not before.
func inTwo() func() {
	var calls struct {
		sync.Mutex
		n int
	}
	second := make(chan struct{})
	return func() {
		calls.Lock()
		calls.n++
		n := calls.n
		calls.Unlock()
		switch n {
		case 1:
			<-second
		case 2:
			close(second)
		}
	}
}

// bundles does what Beam lets a runner do, and Prism does not: it puts elements in any order,
// divides them into bundles, drops what comes of a bundle that fails half-way, and runs its
// elements again, divided otherwise. All that goes in and out is encoded and decoded.
func bundles[I, O any](t *testing.T, r *rand.Rand, in []I, process func(I, func(O)) error) (out []O) {
	in = append([]I(nil), in...)
	r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
	for len(in) > 0 {
		n := 1 + r.IntN(min(len(in), 4))
		fails := n
		if r.IntN(2) == 0 {
			fails = r.IntN(n)
		}
		var made []O
		done := func() (done bool) {
			defer func() { _ = recover() }()
			for i, x := range in[:n] {
				if err := process(coded(t, x), func(y O) { made = append(made, coded(t, y)) }); err != nil {
					t.Fatal(err)
				}
				if i == fails {
					panic("fails on the first try")
				}
			}
			return true
		}()
		if done {
			out, in = append(out, made...), in[n:]
		}
	}
	return out
}

// combined is what comes of a CombineFn, however its inputs are grouped into accumulators and in
// whatever order these are merged.
func combined[A, I any](t *testing.T, r *rand.Rand, in []I, add func(A, I) (A, error), merge func(A, A) (A, error)) A {
	list := make([]A, 1+r.IntN(len(in)))
	for _, i := range r.Perm(len(in)) {
		a := r.IntN(len(list))
		list[a] = must(add(coded(t, list[a]), coded(t, in[i])))(t)
	}
	for len(list) > 1 {
		i := 1 + r.IntN(len(list)-1)
		list[0] = must(merge(coded(t, list[0]), coded(t, list[i])))(t)
		list = append(list[:i], list[i+1:]...)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	return list[0]
}

// coded is an element after Beam has written and read it.
func coded[T any](t *testing.T, x T) (y T) {
	t.Helper()
	var b bytes.Buffer
	if err := beam.NewElementEncoder(reflect.TypeFor[T]()).Encode(x, &b); err != nil {
		t.Fatal(err)
	}
	return must(beam.NewElementDecoder(reflect.TypeFor[T]()).Decode(&b))(t).(T)
}

func must[T any](x T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

// each gives the elements of a list one by one, as Beam gives grouped ones.
func each[T any](list []T) func(*T) bool {
	return func(x *T) bool {
		if len(list) == 0 {
			return false
		}
		*x, list = list[0], list[1:]
		return true
	}
}
