// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/fleet"
	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	"fulmar/trust"
)

// keyDesk is where key sets are worked on.
type keyDesk struct {
	office
	draft  string
	stolen bool
}

func (o *keyDesk) dir() string { return filepath.Join(o.data, keyring.Dir) }

func (d *desk) keysCommand() *cobra.Command {
	o := &keyDesk{office: office{desk: d}}
	c := cli.Group(&cobra.Command{
		Use: "keys", Short: "the key set: whose commands and settings the boards take",
		Long: "docs/keys.md tells how a team takes the root over, and what a theft costs.",
	})
	show := o.command("show", "the key set in force, and which of its keys this server holds", "  fulmar-fleet keys show\n  fulmar-fleet keys show --out keyset.json",
		func(context.Context, []string) error { return o.show() })
	install := o.command("install FILE", "put a set in force that the present root and its own signed", "  fulmar-fleet keys install keyset-2.json",
		func(ctx context.Context, words []string) error { return o.install(ctx, words[0]) }, "a file FILE")
	rotate := o.command("rotate-command", "make the next command key and the set that names it", "  fulmar-fleet keys rotate-command\n  fulmar-fleet keys rotate-command --stolen --out keyset-3.json",
		func(ctx context.Context, _ []string) error { return o.rotate(ctx) })
	show.Flags().StringVar(&o.draft, "out", "", "write the set to a new file: what fulmar key rotate --set begins with")
	rotate.Flags().StringVar(&o.draft, "out", "", "where the set goes if the holders of the root have to sign it")
	rotate.Flags().BoolVar(&o.stolen, "stolen", false, "drop the present key at once; otherwise boards take it until the next rotation")
	rotate.Flags().StringVar(&o.key, "key", "", "exec:PROGRAM..., an external signer (docs/signers)")
	rotate.Flags().StringVar(&o.chip, "tpm", "", "a key in this machine's TPM, made if FILE is not there")
	cli.Takes(rotate, "key", "KEY")
	cli.Takes(rotate, "tpm", "FILE[,DEVICE]")
	cli.File(show, "out", "json")
	cli.File(rotate, "out", "json")
	show.ValidArgsFunction, rotate.ValidArgsFunction = cli.Nothing, cli.Nothing
	c.AddCommand(show, install, rotate)
	return c
}

// show prints the set in force.
func (o *keyDesk) show() error {
	set, envelope, err := keyring.Present(o.dir())
	if err != nil {
		return err
	}
	if o.draft != "" {
		return newFile(o.draft, envelope)
	}
	root, command := keyring.Held(o.dir(), fleet.OpenTPMKey, set)
	fmt.Fprintf(o.out, "key set %d\n", set.Version)
	for _, k := range set.Keys {
		id, err := trust.KeyID(k.Public)
		if err != nil {
			return err
		}
		held := ""
		if id == root || id == command {
			held = "  held by this server"
		}
		fmt.Fprintf(o.out, "  %-12s %.16s  %d of them sign%s\n", k.Role, id, set.Thresholds[k.Role], held)
	}
	if command == "" {
		fmt.Fprintln(o.talk, "this server holds none of the set's command keys: it cannot sign commands, and does not start")
	}
	return nil
}

func (o *keyDesk) install(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(f, trust.MaxEnvelope+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	set, err := keyring.Install(o.dir(), fleet.OpenTPMKey, b)
	if err != nil {
		return err
	}
	if err := o.noted(ctx, fmt.Sprintf("set %d installed", set.Version)); err != nil {
		return err
	}
	fmt.Fprintf(o.talk, "key set %d is in force from the next start on: restart the server, and boards get it as they connect\n", set.Version)
	if root, _ := keyring.Held(o.dir(), fleet.OpenTPMKey, set); root == "" {
		fmt.Fprintf(o.talk, "its root is not this server's; if it was before, that key is of no use any more: shred -u %s\n", filepath.Join(o.dir(), "root.key"))
	}
	return o.show()
}

func (o *keyDesk) rotate(ctx context.Context) error {
	ref, err := o.heldKey()
	if err != nil {
		return err
	}
	set, draft, err := keyring.RotateCommand(o.dir(), fleet.OpenTPMKey, keyring.Rotation{Reference: ref, Stolen: o.stolen})
	if errors.Is(err, keyring.ErrOffline) {
		if o.draft == "" {
			return fmt.Errorf("%w: give --out FILE, have them sign it (fulmar key sign), then: fulmar-fleet keys install FILE", err)
		}
		if err := newFile(o.draft, draft); err != nil {
			return err
		}
		fmt.Fprintf(o.talk, "%s is key set %d for the holders of the root: fulmar key sign KEY %s, then here: fulmar-fleet keys install %s\n", o.draft, set.Version, o.draft, o.draft)
		return nil
	}
	if err != nil {
		return err
	}
	if err := o.noted(ctx, fmt.Sprintf("set %d: command key rotated, the one before stolen: %v", set.Version, o.stolen)); err != nil {
		return err
	}
	fmt.Fprintf(o.talk, "key set %d is in force from the next start on: restart the server, and boards get it as they connect\n", set.Version)
	o.draft = ""
	return o.show()
}

// noted writes what was done into the audit log.
func (o *keyDesk) noted(ctx context.Context, what string) error {
	err := o.tool(func(reg *registry.Registry) error { return reg.KeysChanged(ctx, who(), what) })
	if err != nil {
		return fmt.Errorf("done (%s), but not noted in the audit log: %w", what, err)
	}
	return nil
}

// newFile writes a file that is not there.
func newFile(path string, b []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already", path)
	}
	return atomicfile.WriteFile(path, b, 0o644)
}
