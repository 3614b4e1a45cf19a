package lm

import "io"

// Pager is a Streamer whose states can stand in pages, which several of them share.
type Pager interface {
	Streamer
	// NewPages returns what makes such pages, of a number of tokens, or nil where states of
	// a configuration cannot stand in pages.
	NewPages(cfg StateConfig, tokens int) (Pages, error)
}

// Pages makes pages of one mixer's states, and states of pages. It is safe for concurrent
// use; memory goes with those that hold it.
type Pages interface {
	// PageBytes is the memory of a page.
	PageBytes() int64
	// Take returns tokens from ... from+n of a state, which shares them or is copied.
	Take(st LayerState, from, n int) (Page, error)
	// Join returns a state of the first tokens of pages, of which all but the last are whole.
	Join(pages []Page, tokens int) (LayerState, error)
	// ReadPage reads what Page.WriteTo wrote.
	ReadPage(r io.Reader) (Page, error)
}

// Page is some tokens of a state. It does not change.
type Page interface {
	Tokens() int
	WriteTo(w io.Writer) (int64, error)
}
