package tokenizer

import (
	"encoding/json"
	"fmt"
)

const (
	// mostGrowth is how many times as long the stages of a tokenizer may make a text: each of
	// many could double it.
	mostGrowth = 1 << 9
	// mostDepth is how deep sequences of stages may stand in each other.
	mostDepth = 16
)

// checkGrowth returns an error where stages, one after the other, could make much of a text.
func checkGrowth(stages []*section) error {
	g, err := growthOf(stages, 0)
	if err == nil && !(g <= mostGrowth) {
		err = fmt.Errorf("stages that could make a text %.3g times as long, want at most %d", g, mostGrowth)
	}
	return err
}

func growthOf(stages []*section, depth int) (float64, error) {
	if depth > mostDepth {
		return 0, fmt.Errorf("sequences in sequences, %d and more deep", depth)
	}
	all := 1.0
	for _, s := range stages {
		if s == nil {
			continue
		}
		g, err := growth(s, depth)
		if err != nil {
			return 0, err
		}
		all *= g
	}
	return all, nil
}

// growth returns how many times as long a stage makes a text at the most, in bytes, but for what it adds
// once.
func growth(s *section, depth int) (float64, error) {
	switch s.Type {
	case "ByteLevel":
		return 2, nil
	case "NFC", "NFD", "BertNormalizer":
		return 5, nil // three for the form, spaces around each character
	case "NFKC", "NFKD":
		return 11, nil // U+FDFA is 18 letters
	case "Lowercase":
		return 1.5, nil
	case "Replace":
		f, err := as[struct {
			Pattern json.RawMessage
			Content string
		}](s)
		if err != nil {
			return 0, err
		}
		var pattern struct{ String string }
		if json.Unmarshal(f.Pattern, &pattern) != nil {
			return 1, nil // which is an error of its own
		}
		return max(1, float64(len(f.Content))/float64(max(1, len(pattern.String)))), nil
	case "Sequence":
		f, err := as[struct{ Normalizers, Pretokenizers, Decoders []*section }](s)
		if err != nil {
			return 0, err
		}
		all := 1.0
		for _, list := range [][]*section{f.Normalizers, f.Pretokenizers, f.Decoders} {
			g, err := growthOf(list, depth+1)
			if err != nil {
				return 0, err
			}
			all *= g
		}
		return all, nil
	}
	return 1, nil
}
