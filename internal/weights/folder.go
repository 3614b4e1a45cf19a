package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad"
)

// checkpointNames are the files of a checkpoint that a folder is looked through for, in
// order: safetensors before PyTorch's.
var checkpointNames = []string{
	"model.safetensors", "model.safetensors.index.json", "consolidated.safetensors",
	"pytorch_model.bin", "pytorch_model.bin.index.json", "weights.ckpt", "model.pt", "last.ckpt",
}

// OpenCheckpoint opens a file, the files that an index.json beside them lists
// ("weight_map"), as one, or, of a folder, the first of model.safetensors, its index,
// consolidated.safetensors, pytorch_model.bin, its index, weights.ckpt, model.pt and
// last.ckpt that is in it, or else the only *.safetensors.
func OpenCheckpoint(path string, options ...subquad.OpenOption) (*File, error) {
	if dir := Folder(path); dir == path {
		name, err := inFolder(dir)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(dir, name)
	}
	if filepath.Ext(path) == ".json" {
		return openShards(path, options)
	}
	return Open(path, options...)
}

// inFolder returns the name of the checkpoint in a folder.
func inFolder(dir string) (string, error) {
	for _, name := range checkpointNames {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return name, nil
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("%w", err)
	}
	var found []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".safetensors" && !e.IsDir() {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("%s has none of %s, nor another *.safetensors: %w", dir, strings.Join(checkpointNames, ", "), fs.ErrNotExist)
	}
	return "", fmt.Errorf("%s has %d files *.safetensors and no index of them: give one of %s: %w",
		dir, len(found), listed(found), fs.ErrNotExist)
}

// listed returns some of the names, and how many there are beside them.
func listed(names []string) string {
	const few = 6
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// openShards opens the files of an index: the tensors it names, each where it says.
func openShards(path string, options []subquad.OpenOption) (*File, error) {
	text, err := ReadFile(path, MaxText)
	if err != nil {
		return nil, err
	}
	var index struct {
		Files map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil || len(index.Files) == 0 {
		return nil, fmt.Errorf("%s: %w", path, formatError("no weight_map"))
	}
	out, open, shards := &File{tensors: map[string]*Tensor{}}, closers{}, map[string]*File{}
	fail := func(err error) (*File, error) {
		return nil, errors.Join(err, open.Close())
	}
	for name, file := range index.Files {
		if filepath.Base(file) != file {
			return fail(fmt.Errorf("%s: %w", path, formatError("%q is not a file beside the index", file)))
		}
		shard := shards[file]
		if shard == nil {
			if shard, err = Open(filepath.Join(filepath.Dir(path), file), options...); err != nil {
				return fail(err)
			}
			shards[file], open = shard, append(open, shard)
		}
		t := shard.tensors[name]
		if plain, _ := plainName(name); t == nil && shard.tensors[plain] != nil {
			name, t = plain, shard.tensors[plain]
		}
		if t == nil {
			return fail(fmt.Errorf("%s: %w", path, formatError("%s has no tensor %q; it has %s", file, name, listed(shard.Names()))))
		}
		if out.tensors[name] != nil {
			return fail(fmt.Errorf("%s: %w", path, formatError("two tensors are called %q", name)))
		}
		out.tensors[name] = t
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
