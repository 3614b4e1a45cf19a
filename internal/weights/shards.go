package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// OpenCheckpoint opens a safetensors file, the files that an index.json beside them
// lists ("weight_map"), as one, or, of a folder, the model.safetensors or
// model.safetensors.index.json in it.
func OpenCheckpoint(path string) (*File, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "model.safetensors")
		if _, err := os.Stat(path); err != nil {
			path += ".index.json"
		}
	}
	if filepath.Ext(path) == ".json" {
		return openShards(path)
	}
	return Open(path)
}

// openShards opens the files of an index: the tensors it names, each where it says.
func openShards(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	var index struct {
		Files map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil || len(index.Files) == 0 {
		return nil, fmt.Errorf("%s: %w", path, formatError("no weight_map"))
	}
	out, open, shards := &File{tensors: map[string]*Tensor{}}, closers{}, map[string]*File{}
	for name, file := range index.Files {
		if filepath.Base(file) != file {
			open.Close()
			return nil, fmt.Errorf("%s: %w", path, formatError("%q is not a file beside the index", file))
		}
		shard := shards[file]
		if shard == nil {
			if shard, err = Open(filepath.Join(filepath.Dir(path), file)); err != nil {
				open.Close()
				return nil, err
			}
			shards[file], open = shard, append(open, shard)
		}
		if out.tensors[name] = shard.tensors[name]; out.tensors[name] == nil {
			open.Close()
			return nil, fmt.Errorf("%s: %w", path, formatError("%s has no tensor %q", file, name))
		}
	}
	out.closer = open
	return out, nil
}

type closers []io.Closer

func (list closers) Close() (err error) {
	for _, c := range list {
		err = errors.Join(err, c.Close())
	}
	return err
}
