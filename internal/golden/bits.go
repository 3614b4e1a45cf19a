package golden

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// record appends a line with the file, the test (whose name ends with the tier), the
// tensor and a hash of the results to the file that SUBQUAD_GOLDEN_BITS names, where
// it names one: two lists of a tree before and after a change, sorted, tell whether
// any result changed by a bit.
func (f *File) record(tensor string, got any) {
	path := os.Getenv("SUBQUAD_GOLDEN_BITS")
	if path == "" {
		return
	}
	f.t.Helper()
	h := fnv.New64a()
	if err := binary.Write(h, binary.LittleEndian, got); err != nil {
		f.t.Fatal(err)
	}
	out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		f.t.Fatal(err)
	}
	defer out.Close()
	fmt.Fprintf(out, "%s\t%s\t%s\t%016x\n", filepath.Base(f.path), f.t.Name(), tensor, h.Sum64())
}
