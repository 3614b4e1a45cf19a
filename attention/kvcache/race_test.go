//go:build race

package kvcache

// raceEnabled tells whether the race detector is on, which allocates
const raceEnabled = true
