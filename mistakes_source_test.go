package subquad_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// function is one that the table of mistakes must have: exported, of an operator's
// package, with an error for its last result or a name that begins with one of sized.
type function struct {
	params []string // the names of its parameters
	fails  bool     // it returns an error
	doc    string
}

// sized begins the names of functions that take sizes and have no error to return.
var sized = []string{"ScratchBytes", "StepScratchBytes", "StateBytes", "Bytes", "CoreShape"}

// functions reads the module's packages of operators and models and lists what the
// table must have, as package.Function or package.Type.Method. A method of an embedded
// type of the same package is listed under the type that embeds it.
func functions(t *testing.T) map[string]function {
	t.Helper()
	found := map[string]function{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		switch base := filepath.Base(path); {
		case path == ".":
			return nil
		case slices.Contains([]string{"asm", "bench", "examples", "testdata"}, path), base != path && base == "testdata", base[0] == '.', base[0] == '_':
			return filepath.SkipDir
		case strings.HasPrefix(path, "internal") && path != "internal" && filepath.ToSlash(path) != "internal/lm":
			return filepath.SkipDir
		}
		return readPackage(path, found)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func readPackage(dir string, found map[string]function) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	embeds := map[string][]string{}         // types embedded in a type
	methods := map[string][]*ast.FuncDecl{} // of a type, or "" for functions
	pkg := ""
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg = file.Name.Name
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() {
					methods[receiver(d)] = append(methods[receiver(d)], d)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok {
						embeds[s.Name.Name] = embedded(s.Type)
					}
				}
			}
		}
	}
	add := func(owner string, list []*ast.FuncDecl) {
		for _, d := range list {
			if name := pkg + owner + "." + d.Name.Name; needed(d) {
				found[name] = function{params: params(d), fails: fails(d), doc: d.Doc.Text()}
			}
		}
	}
	add("", methods[""])
	// inherit adds what a type has of types within it that are not exported, however deep.
	var inherit func(owner, name string)
	inherit = func(owner, name string) {
		for _, e := range embeds[name] {
			if !ast.IsExported(e) {
				inherit(owner, e)
			}
		}
		add("."+owner, methods[name])
	}
	for name := range embeds {
		if ast.IsExported(name) {
			inherit(name, name)
		}
	}
	return nil
}

func needed(d *ast.FuncDecl) bool {
	if slices.ContainsFunc(sized, func(s string) bool { return strings.HasPrefix(d.Name.Name, s) }) {
		return d.Type.Params.NumFields() > 0
	}
	return fails(d)
}

func fails(d *ast.FuncDecl) bool {
	results := d.Type.Results
	if results == nil {
		return false
	}
	last, ok := results.List[len(results.List)-1].Type.(*ast.Ident)
	return ok && last.Name == "error"
}

func params(d *ast.FuncDecl) (names []string) {
	for _, p := range d.Type.Params.List {
		for _, n := range p.Names {
			names = append(names, n.Name)
		}
		if p.Names == nil {
			names = append(names, "_")
		}
	}
	return names
}

// receiver is the name of a method's type, "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	x := d.Recv.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.Ident:
			return y.Name
		default:
			return "?"
		}
	}
}

func embedded(x ast.Expr) (names []string) {
	s, ok := x.(*ast.StructType)
	if !ok {
		return nil
	}
	for _, f := range s.Fields.List {
		if f.Names != nil {
			continue
		}
		y := f.Type
		if p, ok := y.(*ast.StarExpr); ok {
			y = p.X
		}
		if n, ok := y.(*ast.Ident); ok {
			names = append(names, n.Name)
		}
	}
	return names
}
