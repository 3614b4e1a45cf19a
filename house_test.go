package subquad_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/subquad/subquad"

// floors is the house: a package imports packages of lower floors only, so that
// arrows go one way, operators know nothing of models, and neighbours nothing of each
// other. A package that stands on no floor fails the test.
var floors = [][]string{
	{"", "internal/mat", "internal/isa", "internal/kernel/scalar"},
	{"internal/kernel", "internal/check", "internal/parallel", "internal/scratch", "internal/topk"},
	{"asm", "internal/pack", "internal/state", "internal/weights", "internal/tokenizer"},
	{"rope", "internal/dense", "internal/tile", "internal/queue"},
	{"attention", "hyena", "ssm", "merge"},
	{"attention/mla", "attention/cca", "attention/landmark", "attention/approx", "ssm/longmamba"},
	{"internal/lm", "merge/catanet"},
	{"hyena/dna", "ssm/mamba", "merge/maelre", "attention/transformer"},
}

// forTests are packages that only tests import.
var forTests = []string{"internal/golden", "internal/isa/isatest", "internal/weights/weightstest", "internal/kernel/kerneltest", "internal/mat/mattest", "internal/state/statetest"}

// programs are commands, which nothing imports.
var programs = []string{".ci/active"}

// kernelRoom is what asm and internal/kernel may import besides: no errors, no
// goroutines, nothing that allocates.
var kernelRoom = map[string][]string{
	"asm":             {"internal/kernel", "internal/kernel/scalar", "internal/mat", "internal/isa"},
	"internal/kernel": {"internal/kernel/scalar", "internal/mat", "internal/isa"},
}

func TestImportArrows(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("go list cannot run here: %v", err)
	}
	list := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	floor := map[string]int{}
	for i, rooms := range floors {
		for _, room := range rooms {
			floor[room] = i
		}
	}
	for _, room := range append(forTests, programs...) {
		floor[room] = len(floors)
	}
	in := func(list []string, room string) bool {
		for _, l := range list {
			if l == room {
				return true
			}
		}
		return false
	}
	packages := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; packages++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := room(p.ImportPath)
		at, known := floor[from]
		if !known {
			t.Errorf("%s stands on no floor of this test", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if path != module && !strings.HasPrefix(path, module+"/") {
				continue
			}
			to := room(path)
			switch {
			case at == len(floors):
			case in(forTests, to):
				t.Errorf("%s imports %s, which is for tests", p.ImportPath, path)
			case floor[to] >= at:
				t.Errorf("%s (floor %d) imports %s (floor %d): arrows go down", p.ImportPath, at, path, floor[to])
			case kernelRoom[from] != nil && !in(kernelRoom[from], to):
				t.Errorf("%s imports %s, want nothing but %v", p.ImportPath, path, kernelRoom[from])
			}
		}
	}
	if packages < 10 {
		t.Errorf("go list names %d packages of this module", packages)
	}
}

// room is a package's path below the module's.
func room(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }
