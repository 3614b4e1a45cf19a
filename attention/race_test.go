//go:build race

package attention

// raceEnabled tells whether the race detector is on, under which package rope's
// Schedule allocates, because less is inlined.
const raceEnabled = true
