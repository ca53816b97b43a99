// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"fulmar/internal/atomicfile"
	"fulmar/storage/vault"
)

// The names of the two halves.
const (
	privateName = "fulmar-recovery-private.pem"
	publicName  = "fulmar-recovery-public.pem"
)

// recoveryNew makes a pair of files and never writes over one.
func recoveryNew(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("fulmar recovery new", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	out := fs.String("out", "", "")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || *out == "" {
		return fmt.Errorf("%w: fulmar recovery new --out DIR", errUsage)
	}
	k, err := vault.NewRecoveryKey()
	if err != nil {
		return err
	}
	private, err := k.PEM()
	if err != nil {
		return err
	}
	public, err := k.Public().PEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o700); err != nil {
		return fmt.Errorf("make recovery key: %w", err)
	}
	privatePath, publicPath := filepath.Join(*out, privateName), filepath.Join(*out, publicName)
	for _, p := range []string{privatePath, publicPath} {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is there already: a recovery key is never written over; choose another folder", p)
		}
	}
	if err := atomicfile.WriteFile(privatePath, private, 0o600); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(publicPath, public, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, `recovery key %s
  %s   keep this offline, in two places: who has it reads every board's disk,
  %s   and without it nobody reads a dead one's
  %s    give this to the boards
`, k.Public().ID(), privatePath, pad(privatePath), publicPath)
	return nil
}

func pad(s string) string { return fmt.Sprintf("%*s", len(s), "") }

// recoveryID tells which key a file is, either half.
func recoveryID(path string, stdout io.Writer) error {
	p, err := vault.ReadRecoveryPublic(path)
	half := "public"
	if err != nil {
		k, kerr := vault.ReadRecoveryKey(path)
		if kerr != nil {
			return kerr
		}
		p, half = k.Public(), "private"
	}
	fmt.Fprintf(stdout, "recovery key %s, %s half\n", p.ID(), half)
	return nil
}
