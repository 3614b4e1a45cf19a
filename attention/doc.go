// Package attention computes exact softmax attention.
package attention
