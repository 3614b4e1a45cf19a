// Command serve is a small HTTP service around a language model of any room: completions and,
// where the checkpoint has a chat template that is known, conversations, streamed as
// server-sent events. Nothing but the standard library is between the model and the network.
//
//	go run ./examples/serve
//	go run ./examples/serve -weights SmolLM2-135M-Instruct -format bfloat16 -addr :8080
//	curl -N localhost:8080/v1/completions -d '{"prompt": "Once upon a time", "stream": true}'
//
// Requests and answers have the names of OpenAI's API as far as they go: POST /v1/completions,
// POST /v1/chat/completions, GET /v1/models, GET /health. README.md shows them.
//
// What a service must bound is bounded by flags: how many texts are generated at once
// (-concurrent) and wait for that (-queue), beyond which there is 503 with Retry-After; bytes of
// a request (-body), tokens of a prompt (-prompt-tokens) and of an answer (-max-tokens); the time
// of an answer (-timeout). Answers that are generated at once go through the model together, a
// token of each in a call, and come and go at any token. A client that leaves, or does not read, gives its place back. Texts
// that begin alike, a system prompt or the conversation so far, are computed once: their states
// are kept under a budget (-prefix-bytes), and from one start to the next (-prefix-file). An interrupt ends the service when running answers have
// ended, or after -grace.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/program"
)

const (
	about = `serve answers completions and conversations over HTTP with a language model, streamed as they are
generated: a small model of children's stories that is built in, or any checkpoint of a transformer,
a Mamba, an RWKV-7 or a HyenaDNA. It bounds what requests may cost, gives a place back when a client leaves,
and keeps what it has computed of prompts that begin alike.`
	usage = `	go run ./examples/serve
	go run ./examples/serve -weights SmolLM2-135M-Instruct -format bfloat16 -addr :8080
	curl -N localhost:8080/v1/completions -d '{"prompt": "Once upon a time", "stream": true}'`
)

// options are the command's flags.
type options struct {
	open          language.Options
	addr, weights string
	limits        limits
	prefixBytes   int64
	prefixFile    string
	grace         time.Duration
}

func main() { program.Main("serve", command) }

func command(ctx context.Context, args []string, _, stderr io.Writer) error {
	var o options
	f := program.Flags("serve", about, usage)
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "`address` to listen at")
	f.StringVar(&o.weights, "weights", "", "checkpoint, a `file` or folder (default: a small model of stories, built in)")
	f.StringVar(&o.open.Format, "format", "float32", "`type` of the weights in memory: float32, bfloat16, float16 or int8")
	f.IntVar(&o.limits.concurrent, "concurrent", 8, "texts generated at once, a token of each in one call of the model")
	f.IntVar(&o.limits.queue, "queue", 16, "requests that wait for one of these; more get 503")
	f.Int64Var(&o.limits.body, "body", 1<<20, "most `bytes` of a request")
	f.IntVar(&o.limits.prompt, "prompt-tokens", 4096, "most tokens of a prompt")
	f.IntVar(&o.limits.answer, "max-tokens", 1024, "most tokens of an answer")
	f.DurationVar(&o.limits.timeout, "timeout", 5*time.Minute, "most time that an answer takes, the wait for its turn included")
	f.Int64Var(&o.prefixBytes, "prefix-bytes", 256<<20, "`bytes` for what is known of prompts; 0 keeps nothing")
	f.StringVar(&o.prefixFile, "prefix-file", "", "`file` that keeps what is known of prompts from one start to the next")
	f.DurationVar(&o.grace, "grace", 10*time.Second, "how long running answers may go on after an interrupt")
	f.IntVar(&o.open.Workers, "workers", 0, "goroutines for each call of the model (default: one for each processor)")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	m, err := openModel(o)
	if err != nil {
		return err
	}
	s, err := newServer(m, o.limits, o.prefixBytes, o.prefixFile)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s of %s at http://%s, %s\n", m.Room, program.Size(m.Bytes()), l.Addr(), s.about())
	return errors.Join(serve(ctx, s, l, o.grace), s.keep(o.prefixFile))
}

func (o *options) check() error {
	for _, x := range []struct {
		name         string
		value, least int64
	}{
		{"concurrent", int64(o.limits.concurrent), 1}, {"queue", int64(o.limits.queue), 0}, {"body", o.limits.body, 1}, {"prompt-tokens", int64(o.limits.prompt), 1},
		{"max-tokens", int64(o.limits.answer), 1}, {"timeout", int64(o.limits.timeout), 1}, {"prefix-bytes", o.prefixBytes, 0}, {"grace", int64(o.grace), 0},
	} {
		if x.value < x.least {
			return fmt.Errorf("-%s is %d, want %d or more", x.name, x.value, x.least)
		}
	}
	if most := 1 << 20; o.limits.concurrent > most || o.limits.queue > most {
		return fmt.Errorf("-concurrent is %d and -queue %d, want at most %d", o.limits.concurrent, o.limits.queue, most)
	}
	if o.prefixFile == "" {
		return nil
	}
	if o.prefixBytes == 0 {
		return errors.New("-prefix-file with -prefix-bytes 0: nothing is kept")
	}
	// At the end is too late to find out that it cannot be written.
	if f, err := os.Stat(filepath.Dir(o.prefixFile)); err != nil || !f.IsDir() {
		return fmt.Errorf("-prefix-file is in %s, which is no folder", filepath.Dir(o.prefixFile))
	}
	return nil
}

func openModel(o options) (*language.Model, error) {
	if _, err := os.Stat(o.weights); o.weights == "" || err != nil && o.weights == "stories" {
		return language.Stories(o.open)
	}
	return language.Open(o.weights, o.open)
}

// serve answers requests until ctx is done, and those that are running then until they have
// ended or grace has.
func serve(ctx context.Context, s *server, l net.Listener, grace time.Duration) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	h := &http.Server{
		Handler: s.handler(), BaseContext: func(net.Listener) context.Context { return running },
		// No ReadTimeout: it would end answers that take longer. Bodies have their own.
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.draining.Store(true)
	wait, cancel := context.WithTimeout(running, grace)
	defer cancel()
	if err := h.Shutdown(wait); err != nil {
		stop() // requests see that their context is done
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := h.Shutdown(last); err != nil {
			return errors.Join(err, h.Close())
		}
	}
	return nil
}
