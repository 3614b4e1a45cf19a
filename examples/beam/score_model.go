package main

import (
	"bytes"
	"context"
	"sync"

	"github.com/subquad/subquad/examples/internal/ecoli"
	"github.com/subquad/subquad/hyena/dna"
)

// models are those that this process has loaded: DoFns come and go with bundles, and several
// work at a time; weights stay, and all read the same.
var models struct {
	sync.Mutex
	loaded map[modelKey]*dna.Model
	loads  int
}

type modelKey struct {
	weights, config string
	workers         int
}

// sharedModel returns the model of a scoring, loaded when it is asked for first.
func sharedModel(ctx context.Context, c scoring) (*dna.Model, error) {
	models.Lock()
	defer models.Unlock()
	key := modelKey{c.Weights, c.Config, c.Workers}
	if m := models.loaded[key]; m != nil {
		return m, nil
	}
	m, err := loadModel(ctx, c)
	if err != nil {
		return nil, err
	}
	if models.loaded == nil {
		models.loaded = map[modelKey]*dna.Model{}
	}
	models.loaded[key] = m
	models.loads++
	return m, nil
}

// loadModel reads a checkpoint: of this machine's as package dna does, which knows folders and
// checkpoints in several files, else one file through Beam's file systems.
func loadModel(ctx context.Context, c scoring) (*dna.Model, error) {
	if isLocal(c.Weights) && isLocal(c.Config) {
		return ecoli.Open(c.Weights, c.Config, c.Workers)
	}
	var cfg dna.Config
	if c.Config != "" {
		text, err := readFile(ctx, c.Config)
		if err != nil {
			return nil, err
		}
		if cfg, err = dna.ParseConfig(text); err != nil {
			return nil, err
		}
	}
	cfg.Workers = c.Workers
	weights, err := readFile(ctx, c.Weights)
	if err != nil {
		return nil, err
	}
	return dna.Read(bytes.NewReader(weights), int64(len(weights)), cfg)
}
