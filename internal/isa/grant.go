package isa

import "sync"

// Granted is Has for units whose registers the operating system has to hand out: it asks
// for them the first time, for the whole process, and remembers what it was told.
func Granted(u Unit) bool { return Has(u) && tilesGranted() }

var tilesGranted = sync.OnceValue(askForTiles)
