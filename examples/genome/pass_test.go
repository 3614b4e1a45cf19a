package main

import (
	"io"
	"strings"
	"testing"

	"github.com/subquad/subquad/asm"
)

// TestPass reads a short genome in one pass of one layer, and refuses what it cannot.
func TestPass(t *testing.T) {
	if asm.Active() == "generic" {
		t.Skip("takes a minute")
	}
	var out strings.Builder
	args := []string{"-fasta", "testdata/phix174_NC_001422.fna.gz", "-pass", "6000", "-layers", "1"}
	if err := command(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"6000 bases in one pass", "1 of its 8 layers", "bases per second", "GiB: weights and filters", "bits per base"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed %q, want %q in it", out.String(), want)
		}
	}
	for want, args := range map[string][]string{
		"-pass is 1,":          {"-pass", "1"},
		"-pass is 2000000,":    {"-pass", "2000000"},
		"-layers is 9,":        {"-pass", "100", "-layers", "9"},
		"-memory is NaN,":      {"-pass", "100", "-memory", "NaN"},
		"-memory is 0.01 GiB,": {"-pass", "100", "-layers", "1", "-memory", "0.01"},
	} {
		if err := command(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: error %v, want one that begins with %q", args, err, want)
		}
	}
}
