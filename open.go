package subquad

// OpenOption says how a function that opens a file of weights or of a state does so:
// dna.Open, mamba.Open and the like take any number of them.
type OpenOption struct{ mmap bool }

// WithMmap maps the file into memory while it is read, where the system can, instead of
// reading it by calls: opening a large checkpoint then costs no copy in the system's
// cache, and processes that open the same file share its pages. Elsewhere (js/wasm,
// Plan 9) it changes nothing.
//
// It is an option because of what it risks: when another process makes a mapped file
// shorter, reading what is gone ends the program with SIGBUS, which cannot be handled,
// where reading by calls returns an error. Use it for files that nobody changes.
func WithMmap() OpenOption { return OpenOption{mmap: true} }

// Mmap tells whether the option is WithMmap.
func (o OpenOption) Mmap() bool { return o.mmap }
