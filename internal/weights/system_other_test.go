//go:build !unix

package weights

import (
	"errors"
	"time"
)

func makePipe(string) error { return errors.ErrUnsupported }

func processorTime() time.Duration { return 0 }
