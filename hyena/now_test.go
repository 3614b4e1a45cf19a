package hyena

import "time"

var began = time.Now()

// now is a time in seconds, of benchmarks.
func now() float64 { return time.Since(began).Seconds() }
