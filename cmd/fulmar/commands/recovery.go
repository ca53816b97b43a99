// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	"fulmar/storage/vault"
)

// The names of the two halves.
const (
	privateName = "fulmar-recovery-private.pem"
	publicName  = "fulmar-recovery-public.pem"
)

func recoveryCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "recovery", Short: "make the key that opens the disks of dead boards"})
	var out string
	make := &cobra.Command{
		Use: "new --out DIR", Short: "make a recovery key: do this offline, once", Args: cli.Words(),
		Long: `It makes two files and never writes over one. The private half opens the spool of any
board that had the public half in its config, and sealed backups of the fleet. Whoever
has it reads them all; without it nobody reads those of a dead board.`,
		Example:           "  fulmar recovery new --out recovery",
		ValidArgsFunction: cli.Nothing,
		RunE:              func(c *cobra.Command, _ []string) error { return recoveryNew(out, c.OutOrStdout()) },
	}
	make.Flags().StringVar(&out, "out", "", "the folder for both halves, made if it is not there")
	cli.Folder(make, "out")
	id := &cobra.Command{
		Use: "id FILE", Short: "tell which recovery key a file is", Args: cli.Words("a FILE"),
		Example: "  fulmar recovery id recovery/fulmar-recovery-public.pem",
		RunE:    func(c *cobra.Command, words []string) error { return recoveryID(words[0], c.OutOrStdout()) },
	}
	c.AddCommand(make, id)
	return c
}

// recoveryNew makes a pair of files and never writes over one.
func recoveryNew(out string, stdout io.Writer) error {
	if out == "" {
		return fmt.Errorf("%w: fulmar recovery new --out DIR", cli.ErrUsage)
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
	if err := os.MkdirAll(out, 0o700); err != nil {
		return fmt.Errorf("make recovery key: %w", err)
	}
	privatePath, publicPath := filepath.Join(out, privateName), filepath.Join(out, publicName)
	for _, p := range []string{privatePath, publicPath} {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.Exists, "%s is there already: a recovery key is never written over; choose another folder", p)
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
