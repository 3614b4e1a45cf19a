package golden

import (
	"strconv"
	"strings"
	"testing"
)

// Entry is one of the cases that a metadata string lists: the prefix of its tensors,
// with the dot, and its options as text.
type Entry struct {
	Prefix string
	t      *testing.T
	values map[string]string
	read   map[string]bool
}

// Entries reads the metadata "cases": entries cut by semicolons, each a prefix
// ending with a dot, perhaps a colon, and key=value cut by blanks outside brackets.
func (f *File) Entries() (list []*Entry) {
	f.t.Helper()
	for _, text := range strings.Split(f.Meta("cases"), ";") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		words := fields(text)
		e := &Entry{Prefix: strings.TrimSuffix(words[0], ":"), t: f.t, values: map[string]string{}, read: map[string]bool{}}
		if !strings.HasSuffix(e.Prefix, ".") {
			f.t.Fatalf("case %q does not begin with a prefix", text)
		}
		for _, w := range words[1:] {
			key, value, ok := strings.Cut(w, "=")
			if _, again := e.values[key]; !ok || again {
				f.t.Fatalf("case %q: %q is no option, or one that is there before", text, w)
			}
			e.values[key] = value
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		f.t.Fatal("no cases")
	}
	return list
}

// fields cuts text at blanks outside brackets and parentheses.
func fields(text string) (list []string) {
	depth, from := 0, -1
	for i, c := range text + " " {
		switch c {
		case '[', '(', '{':
			depth++
		case ']', ')', '}':
			depth--
		case ' ', '\t', '\n':
			if depth <= 0 {
				if from >= 0 {
					list = append(list, text[from:i])
				}
				from = -1
				continue
			}
		}
		if from < 0 {
			from = i
		}
	}
	return list
}

// Text returns an option, "" where there is none.
func (e *Entry) Text(key string) string { e.read[key] = true; return e.values[key] }

// Has tells whether an option is there and not None.
func (e *Entry) Has(key string) bool { v := e.Text(key); return v != "" && v != "None" }

// Int returns an option that is an integer, or otherwise where there is none.
func (e *Entry) Int(key string, otherwise int) int {
	e.t.Helper()
	return int(e.Float(key, float64(otherwise)))
}

// Float returns an option that is a number, or otherwise where there is none.
func (e *Entry) Float(key string, otherwise float64) float64 {
	e.t.Helper()
	if !e.Has(key) {
		return otherwise
	}
	v, err := strconv.ParseFloat(e.values[key], 64)
	if err != nil {
		e.t.Fatalf("case %s option %s is %q, want a number", e.Prefix, key, e.values[key])
	}
	return v
}

// Bool returns an option that is True or False; False where there is none.
func (e *Entry) Bool(key string) bool {
	e.t.Helper()
	switch e.Text(key) {
	case "True":
		return true
	case "False", "None", "":
		return false
	}
	e.t.Fatalf("case %s option %s is %q, want True or False", e.Prefix, key, e.values[key])
	return false
}

// Ints returns an option that is a list of integers.
func (e *Entry) Ints(key string) (list []int) {
	e.t.Helper()
	for _, w := range strings.FieldsFunc(e.Text(key), func(c rune) bool { return strings.ContainsRune("[](), ", c) }) {
		v, err := strconv.Atoi(w)
		if err != nil {
			e.t.Fatalf("case %s option %s is %q, want integers", e.Prefix, key, e.values[key])
		}
		list = append(list, v)
	}
	return list
}

// Sizes checks what the options say of the sizes that the tensors have, as File.Sizes does.
func (e *Entry) Sizes(want map[string]int) {
	e.t.Helper()
	for key, n := range want {
		if e.Int(key, n) != n {
			e.t.Errorf("case %s: option %s=%s, the tensors say %d", e.Prefix, key, e.values[key], n)
		}
	}
}

// Done fails the test where an option was not asked for, besides those of others.
func (e *Entry) Done(others ...string) {
	e.t.Helper()
	for _, o := range others {
		e.read[o] = true
	}
	for key := range e.values {
		if !e.read[key] {
			e.t.Errorf("case %s: option %s=%s was not read", e.Prefix, key, e.values[key])
		}
	}
}
