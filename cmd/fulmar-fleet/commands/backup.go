// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"fulmar/fleet/backup"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
)

// maxPEM bounds a recovery key file in bytes.
const maxPEM = 8 << 10

// backingUp are the flags of backup.
type backingUp struct {
	out, config, recovery string
	bare                  bool
}

func (d *desk) backupCommand(release string) *cobra.Command {
	b := new(backingUp)
	c := &cobra.Command{
		Use: "backup --out FILE", Short: "write a backup of the data folder, whose server may run", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long: `It holds all that people and boards said: authority, audit key, boards, users, rollouts,
alerts, webhooks, the ledger and the pictures. The time series of telemetry/ are not in
it: a restored server makes them anew from the ledger.

Without --recovery-key the backup is not encrypted, and who reads it can be this fleet.`,
		Example: "  fulmar-fleet backup --out fleet.backup --config /etc/fulmar/fleet.yaml \\\n    --recovery-key recovery/fulmar-recovery-public.pem",
		RunE: func(c *cobra.Command, _ []string) error {
			return b.run(c.Context(), d.data, release, c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&b.out, "out", "", "the file to write, which must not be there")
	c.Flags().StringVar(&b.config, "config", "", "the server's config file, to be kept as well")
	c.Flags().StringVar(&b.recovery, "recovery-key", "", "public recovery key (fulmar recovery new) that the backup is sealed to")
	c.Flags().BoolVar(&b.bare, "no-pictures", false, "leave the pictures out")
	cli.File(c, "out")
	cli.File(c, "config", "yaml", "yml")
	cli.File(c, "recovery-key", "pem")
	return c
}

// run writes a backup of a data folder whose server may run.
func (b *backingUp) run(ctx context.Context, data, release string, talk io.Writer) error {
	if b.out == "" {
		return fmt.Errorf("%w: fulmar-fleet backup --out FILE", cli.ErrUsage)
	}
	out := b.out
	p := backup.Plan{Data: data, Config: b.config, Release: release, Pictures: !b.bare}
	if b.recovery != "" {
		var err error
		if p.Recovery, err = readSmall(b.recovery); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; a backup is never written over", out)
	}
	// Under another name until it is whole, and never readable by others.
	part := out + ".part"
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
	if err := os.Rename(part, out); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(out)); err != nil {
		return err
	}
	fmt.Fprintf(talk, "backup %s, %d MiB, as of %s\n", out, size>>20, time.UnixMilli(h.Made).Format(time.DateTime))
	if h.SealedTo == "" {
		fmt.Fprintln(talk, "IT IS NOT ENCRYPTED: who reads it can be this fleet. Give --recovery-key, or keep it as you keep the server's disk")
	} else {
		fmt.Fprintf(talk, "sealed to recovery key %s: only its private half opens it\n", h.SealedTo)
	}
	for _, ref := range h.KeysElsewhere {
		fmt.Fprintf(talk, "NOT IN IT: the authority's key %s; without it no restored server issues certificates\n", ref)
	}
	if !h.Pictures {
		fmt.Fprintln(talk, "NOT IN IT: pictures; a restored server shows that they are gone")
	}
	return nil
}

func (d *desk) restoreCommand() *cobra.Command {
	var from, recovery string
	c := &cobra.Command{
		Use: "restore --from FILE", Short: "make a data folder of a backup", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long:    "It makes the folder --data, which must not be there, and tells what is not known in it\nbecause it happened after the backup. docs/keys.md has the drill.",
		Example: "  fulmar-fleet restore --from fleet.backup --data restored \\\n    --recovery-key recovery/fulmar-recovery-private.pem",
		RunE: func(c *cobra.Command, _ []string) error {
			return restoreFrom(c.Context(), from, recovery, d.data, c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&from, "from", "", "the backup")
	c.Flags().StringVar(&recovery, "recovery-key", "", "private recovery key, if the backup is sealed")
	cli.File(c, "from")
	cli.File(c, "recovery-key", "pem")
	return c
}

// restoreFrom makes a data folder of a backup.
func restoreFrom(ctx context.Context, from, recovery, data string, talk io.Writer) error {
	if from == "" {
		return fmt.Errorf("%w: fulmar-fleet restore --from FILE", cli.ErrUsage)
	}
	var private []byte
	if recovery != "" {
		var err error
		if private, err = readSmall(recovery); err != nil {
			return err
		}
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	dir, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	res, err := backup.Restore(ctx, r, dir, private)
	if err != nil {
		return err
	}
	fmt.Fprintf(talk, "restored %s as of %s: %d boards\n", dir, time.UnixMilli(res.Made).Format(time.DateTime), res.Boards)
	fmt.Fprintln(talk, `what happened after that is not known here:
  revocations: revoke those boards again NOW, before the server starts
  boards that enrolled: they have to be let in again
  records that boards have let go of: each is booked as lost, "acknowledged, not here"
join tokens, sessions and waiting requests were ended; passwords and API tokens are as they were`)
	for _, ref := range res.KeysElsewhere {
		fmt.Fprintf(talk, "the authority's key is not here but %s: it has to answer, or the server does not start\n", ref)
	}
	if res.Config != "" {
		fmt.Fprintf(talk, "the config file is %s\n", res.Config)
	}
	if !res.Pictures {
		fmt.Fprintln(talk, "the backup was made without pictures")
	}
	fmt.Fprintf(talk, "next: make the server's name lead here, then fulmar-fleet serve --data %s, with its old --host and ports; the lost server must not come back beside it\n", dir)
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
