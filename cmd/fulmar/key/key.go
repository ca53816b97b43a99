// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package key has the commands of fulmar about signing keys and key sets. They work
// without a network.
package key

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	"fulmar/trust"
)

const about = `KEY   file:PATH, or "exec:PROGRAM ARGUMENTS", an external signer
TYPE  keyset, release, assignment, freshness, time, pcrs, command
      or audit-head
ROLE  root, release, director, freshness, time, pcr-approval, command,
      operator or audit
ID    the first 8 or more hex digits of a key's id

All of it works without a network. docs/keys.md tells which key is for what,
docs/signers what an external signer is.`

// Command is fulmar key.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "key", Short: "signing keys and key sets, offline", Long: about})
	c.AddCommand(newCommand(), publicCommand(), showCommand(), signCommand(), verifyCommand(), rotateCommand())
	return c
}

func types() []string {
	return []string{"keyset", "release", "assignment", "freshness", "time", "pcrs", "command", "audit-head"}
}

func newCommand() *cobra.Command {
	var out, kind string
	c := &cobra.Command{
		Use: "new --out FILE", Short: "make a key in a file, which is never written over", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Example: "  fulmar key new --out root-1.pem\n  fulmar key new --kind p256 --out release.pem",
		RunE:    func(c *cobra.Command, _ []string) error { return keyNew(out, kind, c.OutOrStdout()) },
	}
	c.Flags().StringVar(&out, "out", "", "the new file")
	c.Flags().StringVar(&kind, "kind", trust.Ed25519, "which kind of key, ed25519 or p256")
	cli.File(c, "out")
	cli.Values(c, "kind", trust.Ed25519, trust.P256)
	return c
}

func publicCommand() *cobra.Command {
	return &cobra.Command{
		Use: "public KEY", Short: "its public half as PEM, to standard output", Long: about, Args: cli.Words("a KEY"),
		Example: "  fulmar key public file:root-1.pem >root-1.pub",
		RunE: func(c *cobra.Command, words []string) error {
			return keyPublic(words[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

func showCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ENVELOPE", Short: "what an envelope is: its type, its keys if it is a key set, who signed it", Args: cli.Words("an ENVELOPE"),
		Long:    "It says what is written there, to look at before it is signed; verify finds out whether it holds.",
		Example: "  fulmar key show keyset-2.json\n  fulmar key show keyset-1.json | awk '$1 == \"release\" {print $2}'",
		RunE: func(c *cobra.Command, words []string) error {
			e, err := readEnvelope(words[0])
			if err != nil {
				return err
			}
			describe(c.OutOrStdout(), e)
			for _, s := range e.Signatures {
				fmt.Fprintf(c.OutOrStdout(), "signed, as it says, by %s\n", s.KeyID)
			}
			return nil
		},
	}
}

func signCommand() *cobra.Command {
	var word, out string
	c := &cobra.Command{
		Use: "sign KEY FILE", Short: "sign the bytes of a file, or add a signature to an envelope", Args: cli.Words("a KEY", "a FILE"),
		Long: `With --type and --out it makes a new envelope of the bytes of FILE, with one signature.
Without either FILE is an envelope, to which a signature is added in place.

` + about,
		Example: `  fulmar key sign file:release.pem --type release \
    --out release-1.json manifest.json
  fulmar key sign file:root-1.pem keyset-1.json`,
		RunE: func(c *cobra.Command, words []string) error {
			return keySign(words[0], words[1], word, out, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&word, "type", "", "what is signed")
	c.Flags().StringVar(&out, "out", "", "the new envelope")
	cli.Values(c, "type", types()...)
	cli.File(c, "out")
	return c
}

func verifyCommand() *cobra.Command {
	v := new(verifying)
	c := &cobra.Command{
		Use: "verify --set SET --type TYPE ENVELOPE", Short: "are there enough signatures", Args: cli.Words("an ENVELOPE"), Long: about,
		Example: "  fulmar key verify --set keyset-1.json --type release release-1.json",
		RunE:    func(c *cobra.Command, words []string) error { return v.run(words[0], c.OutOrStdout()) },
	}
	c.Flags().StringVar(&v.set, "set", "", "the key set that says who may sign")
	c.Flags().StringVar(&v.pin, "pin", "", "the SHA-256 that the set must have; without it the file is believed")
	cli.Takes(c, "pin", "HEX")
	c.Flags().StringVar(&v.word, "type", "", "what the envelope must be of")
	c.Flags().StringVar(&v.out, "out", "", "write what was signed to a file")
	c.Flags().Uint64Var(&v.epoch, "epoch", 0, "the epoch at which the keys must be good")
	cli.Takes(c, "epoch", "N")
	cli.Values(c, "type", types()...)
	cli.File(c, "set")
	cli.File(c, "out")
	return c
}

func keyNew(out, kind string, stdout io.Writer) error {
	if out == "" {
		return fmt.Errorf("%w: fulmar key new --out FILE", cli.ErrUsage)
	}
	k, err := trust.NewKeyFile(out, kind)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "key %s\n%s holds it; keep a copy where nobody else comes to, there is no other\nnext: fulmar key public file:%s\n", k.ID, out, out)
	return nil
}

func keyPublic(ref string, stdout, stderr io.Writer) error {
	k, err := trust.OpenSigner(ref, nil)
	if err != nil {
		return err
	}
	defer k.Close() //nolint:errcheck // nothing was written
	text, err := trust.PublicPEM(k.Public())
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "key %s\n", k.ID)
	_, err = stdout.Write(text)
	return err
}

// typeOf finds the payload type that a short word names.
func typeOf(word string) (trust.Type, error) {
	t := trust.Type("application/vnd.fulmar." + word + ".v1+json")
	if word == "command" {
		t = trust.TypeCommand
	}
	if t.Role() == "" {
		return "", fmt.Errorf("%w: --type %q is none; wants one of %s", cli.ErrUsage, word, strings.Join(types(), ", "))
	}
	return t, nil
}

func keySign(ref, file, word, out string, stdout io.Writer) error {
	if (word == "") != (out == "") {
		return fmt.Errorf("%w: --type and --out make an envelope of a file, neither adds a signature to one", cli.ErrUsage)
	}
	var e *trust.Envelope
	var err error
	if word == "" {
		out = file
		e, err = readEnvelope(file)
	} else {
		var t trust.Type
		if t, err = typeOf(word); err != nil {
			return err
		}
		if _, serr := os.Lstat(out); !errors.Is(serr, fs.ErrNotExist) {
			return fault.New(fault.Exists, "%s is there already; without --type and --out a signature is added to it", out)
		}
		var payload []byte
		if payload, err = readBounded(file, trust.MaxPayload); err == nil {
			e, err = trust.NewEnvelope(t, payload)
		}
	}
	if err != nil {
		return err
	}
	k, err := trust.OpenSigner(ref, nil)
	if err != nil {
		return err
	}
	defer k.Close() //nolint:errcheck // the signature is made or it is not
	if err := e.Sign(k); err != nil {
		return err
	}
	if err := writeEnvelope(out, e); err != nil {
		return err
	}
	describe(stdout, e)
	fmt.Fprintf(stdout, "signed by %s, %d signatures in %s\n", k.ID, len(e.Signatures), out)
	return nil
}

// verifying are the flags of verify.
type verifying struct {
	set, pin, word, out string
	epoch               uint64
}

func (v *verifying) run(path string, stdout io.Writer) error {
	t, err := typeOf(v.word)
	if err != nil {
		return err
	}
	s, err := OpenSet(v.set, v.pin)
	if err != nil {
		return err
	}
	e, err := readEnvelope(path)
	if err != nil {
		return err
	}
	payload, err := s.Verify(e, t, v.epoch)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if t == trust.TypeKeySet {
		next, err := s.Next(e)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(stdout, "key set %d may follow key set %d\npin %x\n", next.Version, s.Version, next.Pin())
	} else {
		fmt.Fprintf(stdout, "signed by enough keys of role %s of key set %d at epoch %d\n", t.Role(), s.Version, v.epoch)
	}
	if v.out != "" {
		return atomicfile.WriteFile(v.out, payload, 0o644)
	}
	return nil
}

// OpenSet opens a key set file. Without a pin it is what the person says it is.
func OpenSet(path, pin string) (*trust.KeySet, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: --set FILE names the key set", cli.ErrUsage)
	}
	e, err := readEnvelope(path)
	if err != nil {
		return nil, err
	}
	want := sha256.Sum256(e.Unverified())
	if pin != "" {
		b, err := hex.DecodeString(pin)
		if err != nil || len(b) != len(want) {
			return nil, fmt.Errorf("%w: --pin wants 64 hex digits", cli.ErrUsage)
		}
		want = [32]byte(b)
	}
	s, err := trust.OpenKeySet(e, want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func readEnvelope(path string) (*trust.Envelope, error) {
	b, err := readBounded(path, trust.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	e, err := trust.ParseEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

func writeEnvelope(path string, e *trust.Envelope) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, b, 0o644)
}

func readBounded(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, err
}

// describe tells what was signed: who signs offline should see it.
func describe(w io.Writer, e *trust.Envelope) {
	payload := e.Unverified()
	fmt.Fprintf(w, "type %s, for role %s\n%d bytes, SHA-256 %x\n", e.Type, e.Type.Role(), len(payload), sha256.Sum256(payload))
	if e.Type != trust.TypeKeySet {
		return
	}
	s, err := trust.DraftKeySet(e)
	if err != nil {
		fmt.Fprintf(w, "it is no key set that anybody will take: %v\n", err)
		return
	}
	fmt.Fprintf(w, "key set %d\n", s.Version)
	for _, k := range s.Keys {
		id, _ := trust.KeyID(k.Public) // the set was checked
		line := fmt.Sprintf("  %-12s %s", k.Role, id)
		if k.Role != trust.RoleRoot {
			line += fmt.Sprintf(" from epoch %d", k.From)
		}
		if k.Until != 0 {
			line += fmt.Sprintf(", until before %d", k.Until)
		}
		fmt.Fprintln(w, line)
	}
	var need []string
	for _, r := range trust.Roles() {
		if n := s.Thresholds[r]; n > 0 {
			need = append(need, fmt.Sprintf("%s %d", r, n))
		}
	}
	fmt.Fprintf(w, "signatures wanted: %s\n", strings.Join(need, ", "))
}
