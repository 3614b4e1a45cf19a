//go:build !js

package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestCommand wants help, and mistakes told before anything is built.
func TestCommand(t *testing.T) {
	var help strings.Builder
	if err := command(t.Context(), []string{"-h"}, io.Discard, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "go run ./examples/browser") {
		t.Errorf("-h: error %v, printed %q", err, help.String())
	}
	if err := command(t.Context(), []string{"-addr", "nosuch"}, io.Discard, io.Discard); err == nil {
		t.Error("no error for an address that is none")
	}
}

// browser returns the browser that there is, or skips the test.
func browser(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("there is no browser: none of %v is installed", names)
	return ""
}

// TestPage has a real browser read genomes: pasted, from a file, and the one that is built in, and
// show what it cannot read.
func TestPage(t *testing.T) {
	path := browser(t)
	dir := t.TempDir()
	if err := build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(serving, listener, dir) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	// A sandbox takes rights that a container does not give, and the page is our own.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1100, 900), chromedp.WSURLReadTimeout(3*time.Minute))
	ctx, done := chromedp.NewExecAllocator(t.Context(), options...)
	defer done()
	ctx, done = chromedp.NewContext(ctx)
	defer done()
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatal(err)
	}
	ctx, done = context.WithTimeout(ctx, 20*time.Minute) // of a machine that others use too
	defer done()
	text := func(id string) string {
		t.Helper()
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.getElementById("`+id+`").textContent`))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	run := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v; the page says %q and %q", what, err, text("status"), text("error"))
		}
	}
	until := func(condition string) chromedp.Action[chromedp.Void] {
		return chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(0))
	}
	const finished = `document.getElementById("status").textContent.startsWith("Done:")`

	run("load", chromedp.Navigate("http://"+listener.Addr().String()+"/"), until(`document.getElementById("status").textContent == "Ready."`))

	// What is no FASTA is said to be none, and what was pasted can be mended.
	run("a letter that is none", chromedp.SetValue("#text", "AC7T"), chromedp.Click("#read"),
		until(`document.getElementById("error").textContent.includes("FASTA") && !busy`))
	run("too much memory", chromedp.Evaluate[chromedp.Void](`setBusy(true); worker.postMessage({ file: { length: 2 ** 40 }, window: 1024, mask: false })`),
		until(`document.getElementById("error").textContent.includes("has ended") && !busy`))
	run("no text", chromedp.SetValue("#text", " "), chromedp.Click("#read"), until(`document.getElementById("error").textContent.includes("empty")`))
	run("pasted", chromedp.SetValue("#text", strings.Repeat("ACGT", 100)), chromedp.Click("#read"), until(finished))
	if status := text("status"); !strings.Contains(status, "400 bases") {
		t.Errorf("pasted: %q", status)
	}

	run("dropped", chromedp.Evaluate[chromedp.Void](`{
		const d = new DataTransfer();
		d.items.add(new File([">one\n" + "ACGT".repeat(50) + "\n>two\nACGTN"], "two.fa"));
		document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: d, bubbles: true, cancelable: true }));
	}`), until(`document.getElementById("status").textContent.startsWith("Done: 205 bases")`))

	// A file gives what the official code finds in float64.
	genome, err := filepath.Abs("../genome/testdata/phix174_NC_001422.fna.gz")
	if err != nil {
		t.Fatal(err)
	}
	run("a file", chromedp.SetUploadFiles("#file", []string{genome}), until(`document.getElementById("status").textContent.startsWith("Done: 5,386 bases")`))
	status := text("status")
	if bits := number(t, status, `([0-9.]+) bits per base`); !strings.Contains(status, "5,386 bases") || math.Abs(bits-1.97147) > 1e-4 {
		t.Errorf("phiX174: %q, want 1.97147 bits per base", status)
	}
	if hover, err := chromedp.Run(ctx, chromedp.Evaluate[string](`track.describe(100)`)); err != nil || !regexp.MustCompile(`:101  [ACGT]{15}\[[ACGT]\][ACGT]{15}  [0-9.]+ bits$`).MatchString(hover) {
		t.Errorf("a base is described as %q, error %v", hover, err)
	}

	// The page lives while the worker works, a run can be stopped, and another begun.
	lambda := 2000
	if !testing.Short() {
		lambda = 48502
	}
	begin := time.Now()
	run("phage lambda", chromedp.Evaluate[chromedp.Void](`window.ticks = 0; setInterval(() => window.ticks++, 5)`), chromedp.Click("#lambda"),
		until(`track.length >= `+strconv.Itoa(lambda)))
	ticks, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`window.ticks`))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bases of phage lambda in %v, %v ticks of the page meanwhile", lambda, time.Since(begin).Round(100*time.Millisecond), ticks)
	if ticks < 5 {
		t.Errorf("the page stood still: %v ticks", ticks)
	}
	if lambda == 48502 {
		run("the end", until(finished))
		status := text("status")
		if bits := number(t, status, `([0-9.]+) bits per base`); math.Abs(bits-1.93191) > 1e-4 {
			t.Errorf("phage lambda: %q, want 1.93191 bits per base", status)
		}
	}
	if name := os.Getenv("SUBQUAD_SCREENSHOT"); name != "" { // for who changes the page
		picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, picture, 0o666); err != nil {
			t.Error(err)
		}
	}
	if testing.Short() {
		run("stop", chromedp.Click("#stop"), until(`document.getElementById("status").textContent == "Stopped." || document.getElementById("status").textContent == "Ready."`))
		run("again", chromedp.SetValue("#text", ">a\nACGT\n>b\nNNGA"), chromedp.Click("#read"), until(finished))
		if status := text("status"); !strings.Contains(status, "8 bases") {
			t.Errorf("after a stop: %q", status)
		}
	}
}

// number returns what a pattern finds in a text.
func number(t *testing.T, text, pattern string) float64 {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		t.Errorf("%q has no %s", text, pattern)
		return math.NaN()
	}
	v, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Error(err)
	}
	return v
}
