//go:build purego || !(linux && amd64)

package isa

// askForTiles returns that there are none: how other systems hand them out is not known here.
func askForTiles() bool { return false }
