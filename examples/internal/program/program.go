// Package program is what the examples have in common as programs: their flags and -h,
// interruption, progress on a terminal, and files that are known to be writable before
// anything is computed.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// Main runs a command with the arguments of the process until it ends or is interrupted
// (ctrl-C), and exits with status 1 after an error.
func Main(name string, command func(ctx context.Context, args []string, stdout, stderr io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Flags returns the flags of a command, whose -h says what it does and gives examples, one
// to a line.
func Flags(name, does, examples string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "%s\n\n%s\n\nFlags:\n", does, examples)
		f.PrintDefaults()
	}
	return f
}

// Parse parses arguments that are flags and nothing else. For -h it prints the help and
// returns flag.ErrHelp; other errors print nothing.
func Parse(f *flag.FlagSet, args []string, stderr io.Writer) error {
	usage := f.Usage
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	f.Usage = usage
	f.SetOutput(stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w (-h lists the flags)", err)
	case f.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return nil
}

// Writable returns an error where a file cannot be written. It leaves files as they are.
func Writable(paths ...string) error {
	for _, path := range paths {
		_, missing := os.Lstat(path)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		err = f.Close()
		if missing != nil {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteFile makes a file of what write writes.
func WriteFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// WriteFrom makes a file of what from writes, a picture say.
func WriteFrom(path string, from io.WriterTo) error {
	return WriteFile(path, func(w io.Writer) error {
		_, err := from.WriteTo(w)
		return err
	})
}
