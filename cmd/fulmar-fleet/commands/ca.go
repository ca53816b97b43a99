// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/fleet"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/internal/cli"
)

// maxChain bounds an installed chain in bytes; ca.Install has a bound of its own.
const maxChain = 1 << 20

// office is where the authority is worked on.
type office struct {
	*desk
	key, chip   string
	next, force bool
	out, talk   io.Writer
}

func (o *office) dir() string { return filepath.Join(o.data, "ca") }

// command makes one command of the group.
func (o *office) command(use, short, example string, do func(ctx context.Context, words []string) error, names ...string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cli.Words(names...),
		RunE: func(c *cobra.Command, words []string) error {
			o.out, o.talk = c.OutOrStdout(), c.ErrOrStderr()
			return do(c.Context(), words)
		},
	}
}

func (d *desk) caCommand() *cobra.Command {
	o := &office{desk: d}
	c := cli.Group(&cobra.Command{
		Use: "ca", Short: "the fleet's authority, which issues the certificates of boards",
		Long: "docs/keys.md tells how an authority follows another without a visit to a board.",
	})
	show := o.command("show", "the authority, its certificate and where its key is", "  fulmar-fleet ca show",
		func(context.Context, []string) error { return o.show() })
	begin := o.command("init", "before the first start: a key that is not a file of ours", "  fulmar-fleet ca init --tpm /var/lib/fulmar-fleet/authority.tss2.pem",
		func(context.Context, []string) error { return o.make(true) })
	next := o.command("next", "prepare the next authority; boards are told of it", "  fulmar-fleet ca next",
		func(context.Context, []string) error { return o.make(false) })
	csr := o.command("csr", "a request for an authority above, to standard output", "  fulmar-fleet ca csr >authority.csr", o.request)
	install := o.command("install CHAIN.pem", "the certificate that the authority above made", "  fulmar-fleet ca install chain.pem",
		func(_ context.Context, words []string) error { return o.install(words[0]) }, "a file CHAIN.pem")
	change := o.command("switch", "the next authority issues from now on; again: back", "  fulmar-fleet ca switch", o.change)
	drop := o.command("drop", "take away the one that does not issue", "  fulmar-fleet ca drop", o.drop)
	for _, k := range []*cobra.Command{begin, next} {
		k.Flags().StringVar(&o.key, "key", "", "exec:PROGRAM..., an external signer (docs/signers)")
		k.Flags().StringVar(&o.chip, "tpm", "", "a key in this machine's TPM, made if FILE is not there")
		cli.Takes(k, "key", "KEY")
		cli.Takes(k, "tpm", "FILE[,DEVICE]")
	}
	csr.Flags().BoolVar(&o.next, "next", false, "of the next authority")
	for _, k := range []*cobra.Command{change, drop} {
		k.Flags().BoolVar(&o.force, "force", false, "though boards will have to enrol anew")
	}
	for _, k := range []*cobra.Command{show, begin, next, csr, change, drop} {
		k.ValidArgsFunction = cli.Nothing
	}
	c.AddCommand(show, begin, next, csr, install, change, drop)
	return c
}

func (o *office) request(context.Context, []string) error {
	text, err := ca.Request(o.dir(), o.next, fleet.OpenTPMKey)
	if err != nil {
		return err
	}
	_, err = o.out.Write(text)
	return err
}

func (o *office) change(ctx context.Context, _ []string) error {
	if err := o.everyBoardTold(ctx); err != nil {
		return err
	}
	if err := ca.Switch(o.dir(), fleet.OpenTPMKey); err != nil {
		return err
	}
	fmt.Fprintln(o.talk, "restart the server: from then on the other authority issues, and join tokens and fleet.pin carry its hash")
	return o.show()
}

func (o *office) drop(ctx context.Context, _ []string) error {
	if err := o.noBoardUnder(ctx); err != nil {
		return err
	}
	if err := ca.Drop(o.dir()); err != nil {
		return err
	}
	fmt.Fprintln(o.talk, "restart the server: until then it trusts what was dropped")
	return o.show()
}

// heldKey gives the reference that --key or --tpm mean; "" for a key file of ours.
func heldKey(key, chip string, talk io.Writer) (string, error) {
	switch {
	case key != "" && chip != "":
		return "", fmt.Errorf("%w: --key or --tpm, not both", cli.ErrUsage)
	case chip == "":
		return key, nil
	}
	file, device, _ := strings.Cut(chip, ",")
	file, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if device != "" {
		file += "," + device
	}
	path, _, _ := strings.Cut(file, ",")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := fleet.MakeTPMKey(file); err != nil {
			return "", err
		}
		fmt.Fprintf(talk, "made a key in the TPM; %s names it and is of no use on another machine\n", path)
	}
	return "tpm:" + file, nil
}

func (o *office) make(first bool) error {
	ref, err := heldKey(o.key, o.chip, o.talk)
	if err != nil {
		return err
	}
	if first {
		if ref == "" {
			return errors.New("ca init wants --key or --tpm; with a key file the server makes its authority itself at the first start")
		}
		if err := ca.Init(o.dir(), ref, fleet.OpenTPMKey); err != nil {
			return err
		}
		return o.show()
	}
	if err := ca.Next(o.dir(), ref, fleet.OpenTPMKey); err != nil {
		return err
	}
	fmt.Fprintln(o.talk, "restart the server: boards hear of the next authority when they renew, within 60 days; then: fulmar-fleet ca switch")
	return o.show()
}

func (o *office) install(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	chain, err := io.ReadAll(io.LimitReader(f, maxChain))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	c, err := ca.Install(o.dir(), chain, fleet.OpenTPMKey)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.talk, "installed, signed by %q; restart the server\n", c.Issuer)
	return o.show()
}

func (o *office) show() error {
	dir := o.dir()
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("there is no authority yet: %w", err)
	}
	list, err := ca.List(dir)
	if err != nil {
		return err
	}
	for _, a := range list {
		what := "the other authority: boards are told of it"
		if a.Issues {
			what = "the authority that issues"
		}
		told := "not yet, the server was not restarted"
		if !a.Told.IsZero() {
			told = a.Told.Format(time.DateTime) + " UTC"
		}
		fmt.Fprintf(o.out, "%s\n  subject    %s\n  signed by  %s\n  until      %s\n  key        %s\n  hash       %x\n  told since %s\n",
			what, a.Cert.Subject, a.Cert.Issuer, a.Cert.NotAfter.Format(time.DateOnly), a.Reference, sha256.Sum256(a.Cert.Raw), told)
		if a.Earlier > 0 {
			fmt.Fprintf(o.out, "  and %d earlier certificates of the same key\n", a.Earlier)
		}
	}
	return nil
}

// boards lists the boards of a data folder that may connect; none where no server was
// ever started.
func boards(ctx context.Context, data string) (out []registry.Board, err error) {
	if _, err := os.Stat(filepath.Join(data, "registry.db")); err != nil {
		return nil, nil
	}
	reg, err := registry.Open(data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	all, err := reg.Boards(ctx, registry.DefaultTenant)
	for _, b := range all {
		if !b.Revoked {
			out = append(out, b)
		}
	}
	return out, err
}

// lost refuses what would leave boards behind, unless it is forced.
func (o *office) lost(names []string, why string) error {
	if len(names) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d boards %s: %s", len(names), why, strings.Join(names[:min(len(names), 10)], ", "))
	if len(names) > 10 {
		text += ", ..."
	}
	if o.force {
		fmt.Fprintf(o.talk, "%s; they have to enrol anew\n", text)
		return nil
	}
	return fmt.Errorf("%s; wait until they have renewed, or --force, after which they have to enrol anew", text)
}

// everyBoardTold: a board that renewed after a server began to tell of the other
// authority trusts it.
func (o *office) everyBoardTold(ctx context.Context) error {
	list, err := ca.List(o.dir())
	if err != nil || len(list) < 2 {
		return err // ca.Switch has the words for it
	}
	all, err := boards(ctx, o.data)
	if err != nil {
		return err
	}
	var names []string
	// The registry keeps milliseconds. A server issues nothing in the one before it told.
	for _, b := range all {
		if list[1].Told.IsZero() || ca.IssuedAt(b.NotAfter).Before(list[1].Told.Truncate(time.Millisecond)) {
			names = append(names, b.Name)
		}
	}
	return o.lost(names, "have not been told of the next authority")
}

// noBoardUnder: a board that renewed after the switch has a certificate of the
// authority that issues.
func (o *office) noBoardUnder(ctx context.Context) error {
	dir := o.dir()
	list, err := ca.List(dir)
	if err != nil || len(list) < 2 {
		return err
	}
	since, err := ca.Since(dir)
	if err != nil && !o.force {
		return err
	}
	all, err := boards(ctx, o.data)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range all {
		if ca.IssuedAt(b.NotAfter).Before(since.Truncate(time.Millisecond)) {
			names = append(names, b.Name)
		}
	}
	return o.lost(names, "may have a certificate of the authority that is to be dropped")
}
