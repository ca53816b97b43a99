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
	from   uint64 // epoch of a release key
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
	c.AddCommand(show, install)
	show.Flags().StringVar(&o.draft, "out", "", "write the set to a new file: what fulmar key rotate --set begins with")
	cli.File(show, "out", "json")
	show.ValidArgsFunction = cli.Nothing
	for _, r := range []struct {
		role trust.Role
		what string
	}{
		{trust.RoleCommand, "the next command key and the set that names it"},
		{trust.RoleDirector, "the next director key: what says which board runs what"},
		{trust.RoleFreshness, "the next freshness key: what tells boards the newest"},
	} {
		c.AddCommand(o.rotation(r.role, r.what))
	}
	complete := o.command("complete", "make the keys that the set in force does not name yet, and the set that names them", "  fulmar-fleet keys complete --out keyset-3.json",
		func(ctx context.Context, _ []string) error { return o.complete(ctx) })
	release := o.command("add-release FILE", "take releases that this public key has signed", "  fulmar-fleet keys add-release release.pub\n  fulmar-fleet keys add-release release-2.pub --from 7",
		func(ctx context.Context, words []string) error { return o.addRelease(ctx, words[0]) }, "a file FILE")
	release.Flags().Uint64Var(&o.from, "from", 0, "the first epoch of releases that it may sign")
	for _, x := range []*cobra.Command{complete, release} {
		x.Flags().StringVar(&o.draft, "out", "", "where the set goes if the holders of the root have to sign it")
		cli.File(x, "out", "json")
	}
	complete.ValidArgsFunction = cli.Nothing
	c.AddCommand(complete, release)
	return c
}

// rotation is the command that rotates the key of a role.
func (o *keyDesk) rotation(role trust.Role, what string) *cobra.Command {
	name := "rotate-" + string(role)
	c := o.command(name, "make "+what, "  fulmar-fleet keys "+name+"\n  fulmar-fleet keys "+name+" --stolen --out keyset-3.json",
		func(ctx context.Context, _ []string) error { return o.rotate(ctx, role) })
	c.Flags().StringVar(&o.draft, "out", "", "where the set goes if the holders of the root have to sign it")
	c.Flags().BoolVar(&o.stolen, "stolen", false, "drop the present key at once; otherwise boards take it until the next rotation")
	c.Flags().StringVar(&o.key, "key", "", "exec:PROGRAM..., an external signer (docs/signers)")
	c.Flags().StringVar(&o.chip, "tpm", "", "a key in this machine's TPM, made if FILE is not there")
	cli.Takes(c, "key", "KEY")
	cli.Takes(c, "tpm", "FILE[,DEVICE]")
	cli.File(c, "out", "json")
	c.ValidArgsFunction = cli.Nothing
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
	mine := keyring.Held(o.dir(), fleet.OpenTPMKey, set)
	fmt.Fprintf(o.out, "key set %d\n", set.Version)
	for _, k := range set.Keys {
		id, err := trust.KeyID(k.Public)
		if err != nil {
			return err
		}
		held := ""
		if id == mine[k.Role] {
			held = "  held by this server"
		}
		fmt.Fprintf(o.out, "  %-12s %.16s  %d of them sign%s\n", k.Role, id, set.Thresholds[k.Role], held)
	}
	if mine[trust.RoleCommand] == "" {
		fmt.Fprintln(o.talk, "this server holds none of the set's command keys: it cannot sign commands, and does not start")
	}
	if mine[trust.RoleDirector] == "" || mine[trust.RoleFreshness] == "" {
		fmt.Fprintln(o.talk, "this server holds no director or no freshness key of the set: no board takes an update from it; next: fulmar-fleet keys complete, or keys rotate-director")
	}
	if set.Thresholds[trust.RoleRelease] == 0 {
		fmt.Fprintln(o.talk, "the set names no release key: no release is taken; next: fulmar-fleet keys add-release FILE")
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
	if keyring.Held(o.dir(), fleet.OpenTPMKey, set)[trust.RoleRoot] == "" {
		fmt.Fprintf(o.talk, "its root is not this server's; if it was before, that key is of no use any more: shred -u %s\n", filepath.Join(o.dir(), "root.key"))
	}
	return o.show()
}

func (o *keyDesk) rotate(ctx context.Context, role trust.Role) error {
	ref, err := o.heldKey()
	if err != nil {
		return err
	}
	set, draft, err := keyring.Rotate(o.dir(), fleet.OpenTPMKey, role, keyring.Rotation{Reference: ref, Stolen: o.stolen})
	return o.followed(ctx, set, draft, err, fmt.Sprintf("%s key rotated, the one before stolen: %v", role, o.stolen))
}

func (o *keyDesk) complete(ctx context.Context) error {
	set, draft, err := keyring.Complete(o.dir(), fleet.OpenTPMKey)
	return o.followed(ctx, set, draft, err, "keys of this server added")
}

func (o *keyDesk) addRelease(ctx context.Context, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	public, err := trust.ParsePublicPEM(b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	id, err := trust.KeyID(public)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	set, draft, err := keyring.AddRelease(o.dir(), fleet.OpenTPMKey, public, o.from)
	return o.followed(ctx, set, draft, err, fmt.Sprintf("release key %.16s added, good from epoch %d", id, o.from))
}

// followed tells what became of a next set: it is in force, or a draft for the holders of
// the root.
func (o *keyDesk) followed(ctx context.Context, set *trust.KeySet, draft []byte, err error, what string) error {
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
	if err := o.noted(ctx, fmt.Sprintf("set %d: %s", set.Version, what)); err != nil {
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
