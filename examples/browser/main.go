//go:build !js

// Command browser makes a page that reads genomes in the browser, and serves it.
//
//	go run ./examples/browser
//	go run ./examples/browser -out site
//
// The page runs a small HyenaDNA as WebAssembly in a worker: drop a FASTA file on it and see
// where the model is surprised. Nothing leaves the browser, so that any server of files will do;
// -out writes the page for one. It is built from the library's sources, with the go command, in
// the repository.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/subquad/subquad/examples/internal/program"
)

const (
	about = `browser makes a page that reads genomes in the browser, with a small HyenaDNA as WebAssembly, and
serves it, or writes it as files for a server of yours.`
	usage = `	go run ./examples/browser
	go run ./examples/browser -out site`
	wasm = "github.com/subquad/subquad/examples/browser/wasm"
)

//go:embed page
var page embed.FS

func main() { program.Main("browser", command) }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := program.Flags("browser", about, usage)
	addr := f.String("addr", "localhost:8080", "serve at `address`")
	out := f.String("out", "", "write the page to `folder`, and do not serve it")
	if err := program.Parse(f, args, stderr); err != nil {
		return err
	}
	if *out != "" {
		if err := build(ctx, *out); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "wrote %s: serve it as files, with the type application/wasm for subquad.wasm\n", *out)
		return err
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	dir, err := os.MkdirTemp("", "subquad-browser")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "http://%s/ until it is interrupted\n", listener.Addr()); err != nil {
		return err
	}
	return serve(ctx, listener, dir)
}

// build writes the page to a folder.
func build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	files, err := fs.Sub(page, "page")
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := fs.ReadFile(files, e.Name())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.Name()), text, 0o666)
		}
		if err != nil {
			return err
		}
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("the page is built with the go command: %w", err)
	}
	glue, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "lib/wasm/wasm_exec.js"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "wasm_exec.js"), glue, 0o666); err != nil {
		return err
	}
	target, err := filepath.Abs(filepath.Join(dir, "subquad.wasm"))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", target, wasm)
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the page, which takes the repository's folder: %w\n%s", err, text)
	}
	return nil
}

// serve serves a folder until ctx is done.
func serve(ctx context.Context, listener net.Listener, dir string) error {
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
