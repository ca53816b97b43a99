// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fulmar/fleet"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
)

const caUsage = `fulmar-fleet ca show               the authority, its certificate and where its key is
fulmar-fleet ca init KEY           before the first start: a key that is not a file of ours
fulmar-fleet ca next [KEY]         prepare the next authority; boards are told of it
fulmar-fleet ca csr [--next]       a request for an authority above, to standard output
fulmar-fleet ca install CHAIN.pem  the certificate that it made
fulmar-fleet ca switch [--force]   the next authority issues from now on; again: back
fulmar-fleet ca drop [--force]     take away the one that does not issue
all with [--data DIR]; KEY is
  --key exec:PROGRAM...            an external signer, docs/signers
  --tpm FILE[,DEVICE]              a key in this machine's TPM, made if FILE is not there`

// maxChain bounds an installed chain in bytes; ca.Install has a bound of its own.
const maxChain = 1 << 20

// authority runs one command of the group.
func authority(ctx context.Context, data *string, args []string) error {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, caUsage)
		return errUsage
	}
	f := flag.NewFlagSet("fulmar-fleet ca "+args[0], flag.ContinueOnError)
	f.StringVar(data, "data", *data, "folder of databases, keys and pictures")
	key := f.String("key", "", "reference of the key")
	chip := f.String("tpm", "", "FILE[,DEVICE] of a key in the TPM")
	next := f.Bool("next", false, "of the next authority")
	force := f.Bool("force", false, "though boards will have to enrol anew")
	var words []string
	for rest := args[1:]; ; { // flags before and after the words
		if err := f.Parse(rest); err != nil {
			return err
		}
		if rest = f.Args(); len(rest) == 0 {
			break
		}
		words, rest = append(words, rest[0]), rest[1:]
	}
	dir := filepath.Join(*data, "ca")
	want := 0
	if args[0] == "install" {
		want = 1
	}
	if len(words) != want {
		fmt.Fprintln(os.Stderr, caUsage)
		return errUsage
	}
	switch args[0] {
	case "show":
		return caShow(dir)
	case "init", "next":
		ref, err := heldKey(*key, *chip)
		if err != nil {
			return err
		}
		return caMake(dir, args[0], ref)
	case "csr":
		text, err := ca.Request(dir, *next, fleet.OpenTPMKey)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(text)
		return err
	case "install":
		return caInstall(dir, words[0])
	case "switch":
		if err := everyBoardTold(ctx, *data, *force); err != nil {
			return err
		}
		if err := ca.Switch(dir, fleet.OpenTPMKey); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "restart the server: from then on the other authority issues, and join tokens and fleet.pin carry its hash")
		return caShow(dir)
	case "drop":
		if err := noBoardUnder(ctx, *data, *force); err != nil {
			return err
		}
		if err := ca.Drop(dir); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "restart the server: until then it trusts what was dropped")
		return caShow(dir)
	}
	fmt.Fprintln(os.Stderr, caUsage)
	return errUsage
}

// heldKey gives the reference that --key or --tpm mean; "" for a key file of ours.
func heldKey(key, chip string) (string, error) {
	switch {
	case key != "" && chip != "":
		return "", fmt.Errorf("%w: --key or --tpm, not both", errUsage)
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
		fmt.Fprintf(os.Stderr, "made a key in the TPM; %s names it and is of no use on another machine\n", path)
	}
	return "tpm:" + file, nil
}

func caMake(dir, word, ref string) error {
	if word == "init" {
		if ref == "" {
			return errors.New("ca init wants --key or --tpm; with a key file the server makes its authority itself at the first start")
		}
		if err := ca.Init(dir, ref, fleet.OpenTPMKey); err != nil {
			return err
		}
		return caShow(dir)
	}
	if err := ca.Next(dir, ref, fleet.OpenTPMKey); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "restart the server: boards hear of the next authority when they renew, within 60 days; then: fulmar-fleet ca switch")
	return caShow(dir)
}

func caInstall(dir, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	chain, err := io.ReadAll(io.LimitReader(f, maxChain))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	c, err := ca.Install(dir, chain, fleet.OpenTPMKey)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "installed, signed by %q; restart the server\n", c.Issuer)
	return caShow(dir)
}

func caShow(dir string) error {
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
		fmt.Printf("%s\n  subject    %s\n  signed by  %s\n  until      %s\n  key        %s\n  hash       %x\n  told since %s\n",
			what, a.Cert.Subject, a.Cert.Issuer, a.Cert.NotAfter.Format(time.DateOnly), a.Reference, sha256.Sum256(a.Cert.Raw), told)
		if a.Earlier > 0 {
			fmt.Printf("  and %d earlier certificates of the same key\n", a.Earlier)
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
func lost(names []string, force bool, why string) error {
	if len(names) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d boards %s: %s", len(names), why, strings.Join(names[:min(len(names), 10)], ", "))
	if len(names) > 10 {
		text += ", ..."
	}
	if force {
		fmt.Fprintf(os.Stderr, "%s; they have to enrol anew\n", text)
		return nil
	}
	return fmt.Errorf("%s; wait until they have renewed, or --force, after which they have to enrol anew", text)
}

// everyBoardTold: a board that renewed after a server began to tell of the other
// authority trusts it.
func everyBoardTold(ctx context.Context, data string, force bool) error {
	list, err := ca.List(filepath.Join(data, "ca"))
	if err != nil || len(list) < 2 {
		return err // ca.Switch has the words for it
	}
	all, err := boards(ctx, data)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range all {
		if list[1].Told.IsZero() || ca.IssuedAt(b.NotAfter).Before(list[1].Told) {
			names = append(names, b.Name)
		}
	}
	return lost(names, force, "have not been told of the next authority")
}

// noBoardUnder: a board that renewed after the switch has a certificate of the
// authority that issues.
func noBoardUnder(ctx context.Context, data string, force bool) error {
	dir := filepath.Join(data, "ca")
	list, err := ca.List(dir)
	if err != nil || len(list) < 2 {
		return err
	}
	since, err := ca.Since(dir)
	if err != nil && !force {
		return err
	}
	all, err := boards(ctx, data)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range all {
		if ca.IssuedAt(b.NotAfter).Before(since) {
			names = append(names, b.Name)
		}
	}
	return lost(names, force, "may have a certificate of the authority that is to be dropped")
}
