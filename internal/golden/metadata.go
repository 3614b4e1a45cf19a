package golden

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Meta returns a metadata string, "" where there is none.
func (f *File) Meta(key string) string {
	text, _ := f.meta(key)
	return text
}

func (f *File) meta(key string) (text string, given bool) {
	f.told[key] = true
	text, given = f.file.Metadata[key]
	return text, given
}

// Beside returns the path of a file in the same folder, which a metadata string
// names, or in this repository's own where the other lacks it; it fails the test where the key is missing or names another folder.
func (f *File) Beside(key string) string {
	f.t.Helper()
	name := f.Meta(key)
	if name == "" || filepath.Base(name) != name {
		f.t.Fatalf("metadata %s is %q, want the name of a file", key, name)
	}
	beside := filepath.Join(filepath.Dir(f.path), name)
	if !exists(beside) { // what several files name may be here alone
		if own := filepath.Join(root(f.t), "testdata", "golden", name); exists(own) {
			return own
		}
	}
	return beside
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// Config decodes the JSON of a metadata string into v; it fails the test where
// the key is missing. Keys of the JSON that v lacks are errors, so that no
// option goes unseen.
func (f *File) Config(key string, v any) {
	f.t.Helper()
	text, ok := f.meta(key)
	if !ok {
		f.t.Fatalf("no metadata %q", key)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		f.t.Fatalf("metadata %q: %v", key, err)
	}
}

// Keys returns the metadata keys that begin with prefix, without it, sorted. They do not
// count as read by that.
func (f *File) Keys(prefix string) (keys []string) {
	for k := range f.file.Metadata {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			keys = append(keys, rest)
		}
	}
	sort.Strings(keys)
	return keys
}

// Tolerance is |got - want| <= Abs + Rel |want| + Max max|want|.
type Tolerance struct{ Abs, Rel, Max float64 }

// Tolerance returns the file's own.
func (f *File) Tolerance() Tolerance {
	f.t.Helper()
	number := func(key string) float64 {
		v, err := strconv.ParseFloat(f.Meta(key), 64)
		if err != nil || !(v >= 0) {
			f.t.Fatalf("metadata %s is %q", key, f.Meta(key))
		}
		return v
	}
	tol := Tolerance{Abs: number("atol"), Rel: number("rtol")}
	if _, ok := f.meta("mtol"); ok {
		tol.Max = number("mtol")
	}
	return tol
}

var (
	proseAbs = regexp.MustCompile(`\batol ([0-9.]+(e[-+]?[0-9]+)?)`)
	proseRel = regexp.MustCompile(`\brtol ([0-9.]+(e[-+]?[0-9]+)?)`)
)

// Strict returns the file's tolerance, or what its prose says where that is narrower.
func (f *File) Strict() Tolerance {
	f.t.Helper()
	tol := f.Tolerance()
	for to, pattern := range map[*float64]*regexp.Regexp{&tol.Abs: proseAbs, &tol.Rel: proseRel} {
		if m := pattern.FindStringSubmatch(f.Meta("tol")); m != nil {
			if v, err := strconv.ParseFloat(m[1], 64); err == nil {
				*to = min(*to, v)
			}
		}
	}
	return tol
}

// Sizes checks what the metadata says of the sizes that the tensors have, key by key: a
// key that the file lacks, or that is empty or None, says nothing.
func (f *File) Sizes(want map[string]int) {
	f.t.Helper()
	for key, n := range want {
		if text := f.Meta(key); text != "" && text != "None" && text != strconv.Itoa(n) {
			f.t.Errorf("metadata %s is %q, the tensors say %d", key, text, n)
		}
	}
}

// Numbers returns the numbers of a metadata string, quoted or not, between brackets or cut
// by commas: nil where there is none.
func (f *File) Numbers(key string) (list []float64) {
	f.t.Helper()
	for _, w := range strings.FieldsFunc(f.Meta(key), func(c rune) bool { return strings.ContainsRune("[](){},'\" ", c) }) {
		v, err := strconv.ParseFloat(w, 64)
		if err != nil {
			f.t.Fatalf("metadata %s is %q, want numbers", key, f.Meta(key))
		}
		list = append(list, v)
	}
	return list
}

// CompareLargest fails the test unless the largest size of got is a metadata number within
// the file's tolerance; a file that lacks it says nothing.
func (f *File) CompareLargest(key string, got []float32) {
	f.t.Helper()
	want, tol := f.Number(key, -1), f.Tolerance()
	var largest float64
	for _, v := range got {
		largest = max(largest, math.Abs(float64(v)))
	}
	if want >= 0 && !(math.Abs(largest-want) <= tol.Abs+(tol.Rel+tol.Max)*want) {
		f.t.Errorf("metadata %s is %v, the largest is %v", key, want, largest)
	}
}

// CompareMeta fails the test unless got, cut by commas, is a metadata string that lists
// integers; a file that lacks it says nothing.
func (f *File) CompareMeta(key string, got []int) {
	f.t.Helper()
	list := f.Numbers(key)
	if f.Meta(key) != "" && !slices.EqualFunc(list, got, func(a float64, b int) bool { return a == float64(b) }) {
		f.t.Errorf("metadata %s is %q, want %v", key, f.Meta(key), got)
	}
}

var leading = regexp.MustCompile(`^[0-9.]+(e[-+]?[0-9]+)?`)

// Margin returns the number that a metadata string begins with: how far apart the values
// lie, at least, that a choice of the file was made between. It is 0 where the file does
// not say, and fails the test where float32 could choose otherwise.
func (f *File) Margin(key string) float64 {
	f.t.Helper()
	text := f.Meta(key)
	if text == "" || text == "inf" {
		return 0
	}
	v, err := strconv.ParseFloat(leading.FindString(text), 64)
	if err != nil || v < 0x1p-23 {
		f.t.Fatalf("metadata %s is %q, want a margin that float32 can tell", key, text)
	}
	return v
}

// list returns the JSON list of strings of a metadata key; nil where it is something else.
func (f *File) list(key string) (names []string) {
	if json.Unmarshal([]byte(f.Meta(key)), &names) != nil {
		return nil // what it is is said in words
	}
	return names
}
