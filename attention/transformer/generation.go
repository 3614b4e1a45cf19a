package transformer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// readGeneration reads the generation_config.json beside a checkpoint, whose tokens win over
// those of config.json.
func (s *Shape) readGeneration(path string) error {
	text, err := weights.ReadFile(filepath.Join(weights.Folder(path), "generation_config.json"), weights.MaxText)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("transformer: %w", err)
	}
	f, err := newSection(text)
	if err != nil {
		return check.Errorf(ErrConfig, "transformer: generation_config.json: %v", err)
	}
	if list := f.tokens("bos_token_id"); len(list) > 0 {
		s.BOS = list[0]
	}
	if f.has("eos_token_id") {
		s.EOS = f.tokens("eos_token_id")
	}
	return *f.err
}
