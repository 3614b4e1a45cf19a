// Package ecoli has what is built into the programs about genomes: a small HyenaDNA trained on
// E. coli, and the genome of phage lambda.
package ecoli

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"

	"github.com/subquad/subquad/hyena/dna"
)

//go:embed model/model.safetensors
var weights []byte

//go:embed model/config.json
var config []byte

// Lambda is the genome of phage lambda (NC_001416), a FASTA file compressed by gzip.
//
//go:embed lambda_phage_NC_001416.fa.gz
var Lambda []byte

// Open returns the model of a checkpoint, with the config.json that configPath names or the
// one beside it, or the model that is built in where weightsPath is empty.
func Open(weightsPath, configPath string, workers int) (*dna.Model, error) {
	var cfg dna.Config
	text := config
	if configPath != "" {
		var err error
		if text, err = readConfig(configPath); err != nil {
			return nil, err
		}
	}
	if configPath != "" || weightsPath == "" {
		var err error
		if cfg, err = dna.ParseConfig(text); err != nil {
			return nil, err
		}
	}
	cfg.Workers = workers
	if weightsPath == "" {
		return dna.Read(bytes.NewReader(weights), int64(len(weights)), cfg)
	}
	return dna.Open(weightsPath, cfg)
}

// maxConfig bounds a config.json: what is named so by mistake may have no end.
const maxConfig = 1 << 20

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%s has more than %d bytes, want a config.json", path, maxConfig)
	}
	return text, err
}
