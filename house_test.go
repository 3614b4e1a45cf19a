package subquad_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/subquad/subquad"

// floors is the house: a package imports packages of lower floors only, so that
// arrows go one way, operators know nothing of models, and neighbours nothing of each
// other. A package that stands on no floor fails the test, and so does a floor's name
// that no package has.
var floors = [][]string{
	{".", "internal/mat", "internal/isa", "internal/kernel/scalar"},
	{"internal/kernel", "internal/check", "internal/parallel", "internal/scratch", "internal/topk"},
	{"asm", "internal/mapped", "internal/pack", "internal/weights", "internal/tokenizer"},
	{"internal/state"},
	{"rope", "text", "internal/dense", "internal/tile"},
	{"attention", "hyena", "ssm", "merge"},
	{"attention/mla", "attention/cca", "attention/landmark", "attention/approx", "attention/sparse", "attention/kvcache", "attention/layers", "ssm/longmamba", "ssm/delta"},
	{"internal/lm", "merge/catanet"},
	{"hyena/dna", "hyena/striped", "ssm/mamba", "ssm/rwkv", "merge/maelre", "attention/transformer"},
}

// forTests are packages that only tests import.
var forTests = []string{"internal/needles", "internal/golden", "internal/isa/isatest", "internal/weights/weightstest", "internal/kernel/kerneltest", "internal/mat/mattest", "internal/state/statetest"}

// programs are commands, which nothing imports.
var programs = []string{".ci/active", "bench/count"}

// kernelRoom is what asm and internal/kernel may import besides: no errors, no
// goroutines, nothing that allocates.
var kernelRoom = map[string][]string{
	"asm":             {"internal/kernel", "internal/kernel/scalar", "internal/mat", "internal/isa"},
	"internal/kernel": {"internal/kernel/scalar", "internal/mat", "internal/isa"},
}

// TestImportArrows reads the imports of all files but tests, those of every port and
// build tag among them, which go list would tell of one port alone.
func TestImportArrows(t *testing.T) {
	floor := map[string]int{}
	for i, rooms := range floors {
		for _, room := range rooms {
			floor[room] = i
		}
	}
	for _, room := range slices.Concat(forTests, programs) {
		floor[room] = len(floors)
	}
	rooms := importsOfRooms(t)
	for room := range floor {
		if rooms[room] == nil {
			t.Errorf("the test knows a package %s, which does not exist", room)
		}
	}
	for from, imports := range rooms {
		at, known := floor[from]
		if !known {
			if from != "examples" && !strings.HasPrefix(from, "examples/") {
				t.Errorf("%s stands on no floor of this test", from)
				continue
			}
			at = len(floors)
		}
		for to, file := range imports {
			switch {
			case slices.Contains(programs, to):
				t.Errorf("%s imports %s, a program", file, to)
			case at == len(floors):
			case slices.Contains(forTests, to):
				t.Errorf("%s imports %s, which is for tests", file, to)
			case rooms[to] == nil:
				t.Errorf("%s imports %s, which is no package of this module", file, to)
			case floor[to] >= at:
				t.Errorf("%s (floor %d) imports %s (floor %d): arrows go down", file, at, to, floor[to])
			case kernelRoom[from] != nil && !slices.Contains(kernelRoom[from], to):
				t.Errorf("%s imports %s, want nothing but %v", file, to, kernelRoom[from])
			}
		}
	}
}

// TestFirstPage: the first page lists the public packages, and no others.
func TestFirstPage(t *testing.T) {
	page, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var listed, public []string
	for _, m := range regexp.MustCompile(`(?m)^//   - ([a-z/]+):`).FindAllSubmatch(page, -1) {
		listed = append(listed, string(m[1]))
	}
	for room := range importsOfRooms(t) {
		if top, _, _ := strings.Cut(room, "/"); room != "." && top != "internal" && top != "examples" && !slices.Contains(programs, room) {
			public = append(public, room)
		}
	}
	slices.Sort(listed)
	slices.Sort(public)
	if !slices.Equal(listed, public) {
		t.Errorf("doc.go lists %v, want %v", listed, public)
	}
}

// importsOfRooms returns, for each folder with Go files, the folders of this repository
// that it imports, and a file that does.
func importsOfRooms(t *testing.T) map[string]map[string]string {
	rooms := map[string]map[string]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// The generator is a module of its own; git and test data have no packages.
			if strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == ".git" {
				return filepath.SkipDir
			}
			return nil
		}
		file = filepath.ToSlash(file)
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		room := path.Dir(file)
		if rooms[room] == nil {
			rooms[room] = map[string]string{}
		}
		for _, i := range parsed.Imports {
			to, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if to == module {
				rooms[room]["."] = file
			} else if to, ours := strings.CutPrefix(to, module+"/"); ours {
				rooms[room][to] = file
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rooms
}
