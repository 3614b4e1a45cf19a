package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// names are the files of a checkpoint that a folder is looked through for, in order.
var names = []string{
	"model.safetensors", "model.safetensors.index.json",
	"pytorch_model.bin", "pytorch_model.bin.index.json", "weights.ckpt",
}

// OpenCheckpoint opens a file, the files that an index.json beside them lists
// ("weight_map"), as one, or, of a folder, the first of model.safetensors,
// pytorch_model.bin, their indexes and weights.ckpt that is in it: safetensors
// before PyTorch's.
func OpenCheckpoint(path string) (*File, error) {
	if dir := Folder(path); dir == path {
		i := slices.IndexFunc(names, func(name string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		})
		if i < 0 {
			return nil, fmt.Errorf("weights: %s holds none of %s: %w", dir, strings.Join(names, ", "), fs.ErrNotExist)
		}
		path = filepath.Join(dir, names[i])
	}
	if filepath.Ext(path) == ".json" {
		return openShards(path)
	}
	return Open(path)
}

// Folder returns the folder of a checkpoint's other files: path itself where it is
// one.
func Folder(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
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
