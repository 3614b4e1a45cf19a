package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
)

// ReadConfig returns the text of the config.json beside a checkpoint, or in the folder that
// path is, or else of the params.json that goes with a consolidated.safetensors; nil where
// there is neither.
func ReadConfig(path string) ([]byte, error) {
	for _, name := range []string{"config.json", "params.json"} {
		text, err := ReadFile(filepath.Join(Folder(path), name), MaxText)
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return nil, nil
}

// DecodeConfig decodes a configuration file as Python's json module writes it: NaN,
// Infinity and -Infinity may stand for numbers, and so may objects like
// {"__float__": "Infinity"}, which newer versions of transformers write. Number takes them;
// for other types of fields they are an error, but none where a key is not read at all.
func DecodeConfig(text []byte, v any) error { return json.Unmarshal(plainJSON(text), v) }

// Number is a number of a configuration, possibly NaN or infinite.
type Number float64

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(text []byte) error {
	if quoted, err := strconv.Unquote(string(text)); err == nil && isWord(quoted) {
		text = []byte(quoted)
	} else if len(text) > 0 && text[0] == '"' {
		return fmt.Errorf("%s is not a number", text)
	}
	if string(text) == "null" {
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return fmt.Errorf("%s is not a number", text)
	}
	*n = Number(f)
	return nil
}

func isWord(s string) bool { return s == "NaN" || s == "Infinity" || s == "-Infinity" }

// word is what Python writes of a number that JSON has no form for.
var word = regexp.MustCompile(`^(?:\{\s*"__float__"\s*:\s*"(NaN|-?Infinity)"\s*\}|(NaN|-?Infinity)\b)`)

// plainJSON quotes the words that stand for numbers.
func plainJSON(text []byte) []byte {
	if !bytes.Contains(text, []byte("NaN")) && !bytes.Contains(text, []byte("Infinity")) {
		return text
	}
	var out []byte
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"': // a string is copied as it is
			end := i + 1
			for end < len(text) && text[end] != '"' {
				if text[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(text))
			out = append(out, text[i:end]...)
			i = end
			continue
		case c == '{' || c == 'N' || c == 'I' || c == '-':
			if m := word.FindSubmatch(text[i:]); m != nil {
				out = append(append(append(out, '"'), append(m[1], m[2]...)...), '"')
				i += len(m[0])
				continue
			}
		}
		out = append(out, text[i])
		i++
	}
	return out
}
