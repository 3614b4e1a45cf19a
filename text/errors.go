package text

import "github.com/subquad/subquad"

// Errors of this package match one of these.
var (
	// ErrConfig is about a TemplateConfig.
	ErrConfig = subquad.ErrConfig
	// ErrCall is about text that has no tokens, and messages that a template does not allow.
	ErrCall = subquad.ErrCall
	// ErrCheckpoint is about a file.
	ErrCheckpoint = subquad.ErrCheckpoint
)
