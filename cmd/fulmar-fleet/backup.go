// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"fulmar/fleet/backup"
	"fulmar/internal/atomicfile"
)

// maxPEM bounds a recovery key file in bytes.
const maxPEM = 8 << 10

// backupTo writes a backup of a data folder whose server may run.
func backupTo(ctx context.Context, f *flag.FlagSet, data *string, args []string) error {
	out := f.String("out", "", "the file to write, which must not be there")
	config := f.String("config", "", "the server's config file, to be kept as well")
	recovery := f.String("recovery-key", "", "public recovery key (fulmar recovery new) that the backup is sealed to")
	no := f.Bool("no-pictures", false, "leave the pictures out")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || *out == "" {
		return errUsage
	}
	p := backup.Plan{Data: *data, Config: *config, Release: release, Pictures: !*no}
	if *recovery != "" {
		var err error
		if p.Recovery, err = readSmall(*recovery); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(*out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; a backup is never written over", *out)
	}
	// Under another name until it is whole, and never readable by others.
	part := *out + ".part"
	w, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := w.Chmod(0o600); err != nil { // of one that a killed backup left
		return errors.Join(err, w.Close())
	}
	h, err := backup.Write(ctx, w, p)
	var size int64
	if err == nil {
		if st, serr := w.Stat(); serr == nil {
			size = st.Size()
		}
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, *out); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(*out)); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "backup %s, %d MiB, as of %s\n", *out, size>>20, time.UnixMilli(h.Made).Format(time.DateTime))
	if h.SealedTo == "" {
		fmt.Fprintln(os.Stderr, "IT IS NOT ENCRYPTED: who reads it can be this fleet. Give --recovery-key, or keep it as you keep the server's disk")
	} else {
		fmt.Fprintf(os.Stderr, "sealed to recovery key %s: only its private half opens it\n", h.SealedTo)
	}
	for _, ref := range h.KeysElsewhere {
		fmt.Fprintf(os.Stderr, "NOT IN IT: the authority's key %s; without it no restored server issues certificates\n", ref)
	}
	if !h.Pictures {
		fmt.Fprintln(os.Stderr, "NOT IN IT: pictures; a restored server shows that they are gone")
	}
	return nil
}

// restoreFrom makes a data folder of a backup.
func restoreFrom(ctx context.Context, f *flag.FlagSet, data *string, args []string) error {
	from := f.String("from", "", "the backup")
	recovery := f.String("recovery-key", "", "private recovery key, if the backup is sealed")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || *from == "" {
		return errUsage
	}
	var private []byte
	if *recovery != "" {
		var err error
		if private, err = readSmall(*recovery); err != nil {
			return err
		}
	}
	r, err := os.Open(*from)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	dir, err := filepath.Abs(*data)
	if err != nil {
		return err
	}
	res, err := backup.Restore(ctx, r, dir, private)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "restored %s as of %s: %d boards\n", dir, time.UnixMilli(res.Made).Format(time.DateTime), res.Boards)
	fmt.Fprintln(os.Stderr, `what happened after that is not known here:
  revocations: revoke those boards again NOW, before the server starts
  boards that enrolled: they have to be let in again
  records that boards have let go of: each is booked as lost, "acknowledged, not here"
join tokens, sessions and waiting requests were ended; passwords and API tokens are as they were`)
	for _, ref := range res.KeysElsewhere {
		fmt.Fprintf(os.Stderr, "the authority's key is not here but %s: it has to answer, or the server does not start\n", ref)
	}
	if res.Config != "" {
		fmt.Fprintf(os.Stderr, "the config file is %s\n", res.Config)
	}
	if !res.Pictures {
		fmt.Fprintln(os.Stderr, "the backup was made without pictures")
	}
	fmt.Fprintf(os.Stderr, "next: make the server's name lead here, then fulmar-fleet serve --data %s, with its old --host and ports; the lost server must not come back beside it\n", dir)
	return nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is over %d bytes, no key is", path, maxPEM)
	}
	return b, err
}
