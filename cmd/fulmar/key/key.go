// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package key has the commands of fulmar about signing keys and key sets. They work
// without a network.
package key

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"fulmar/internal/atomicfile"
	"fulmar/trust"
)

// ErrUsage is wrapped by errors about words and flags.
var ErrUsage = errors.New("wrong usage")

// Usage is the line of the commands in fulmar help.
const Usage = `  fulmar key new|public|sign|verify|rotate
                                        signing keys and key sets, offline; fulmar key help tells more
`

const usage = `usage:
  fulmar key new --out FILE [--kind ed25519|p256]
                          make a key in a file, which is never written over
  fulmar key public KEY   its public half as PEM, to standard output
  fulmar key sign KEY --type TYPE --out ENVELOPE FILE
                          sign the bytes of FILE
  fulmar key sign KEY ENVELOPE
                          add a signature to an envelope, in place
  fulmar key verify --set SET [--pin PIN] --type TYPE [--epoch N] [--out FILE] ENVELOPE
                          are there enough signatures; --out writes what was signed
  fulmar key rotate [--set SET] [--add ROLE=PUBLIC.pem[,FROM[,UNTIL]]] [--end ID=EPOCH] [--drop ID]
                    [--threshold ROLE=N] --out ENVELOPE
                          the next key set, or without --set the first one, to be signed by
                          the root keys of both; the flags may be repeated

KEY   file:PATH, or exec:PROGRAM ARGUMENTS (an external signer, docs/signers)
TYPE  keyset, release, assignment, freshness, time, pcrs, command, audit-head
ROLE  root, release, director, freshness, time, pcr-approval, command, audit
ID    the first 8 or more hex digits of a key's id
All of it works without a network. docs/keys.md tells which key is for what.
`

// Command runs one command of the group.
func Command(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: fulmar key new, public, sign, verify or rotate; fulmar key help tells more", ErrUsage)
	}
	switch word, rest := args[0], args[1:]; word {
	case "new":
		return keyNew(rest, stdout)
	case "public":
		return keyPublic(rest, stdout, stderr)
	case "sign":
		return keySign(rest, stdout)
	case "verify":
		return keyVerify(rest, stdout)
	case "rotate":
		return keyRotate(rest, stdout)
	case "help":
		fmt.Fprint(stdout, usage)
		return nil
	default:
		return fmt.Errorf("%w: fulmar key %s is no command; fulmar key help tells them", ErrUsage, word)
	}
}

// keyFlags parses flags before and after the arguments, of which there are n.
func keyFlags(f *flag.FlagSet, args []string, n int) ([]string, error) {
	f.SetOutput(io.Discard)
	var words []string
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
		if args = f.Args(); len(args) > 0 {
			words, args = append(words, args[0]), args[1:]
		}
	}
	if len(words) != n {
		return nil, fmt.Errorf("%w: %s wants %d arguments and got %d; fulmar key help tells them", ErrUsage, f.Name(), n, len(words))
	}
	return words, nil
}

func keyNew(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("fulmar key new", flag.ContinueOnError)
	out := f.String("out", "", "")
	kind := f.String("kind", trust.Ed25519, "")
	if _, err := keyFlags(f, args, 0); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("%w: fulmar key new --out FILE", ErrUsage)
	}
	k, err := trust.NewKeyFile(*out, *kind)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "key %s\n%s holds it; keep a copy where nobody else comes to, there is no other\nnext: fulmar key public file:%s\n", k.ID, *out, *out)
	return nil
}

func keyPublic(args []string, stdout, stderr io.Writer) error {
	words, err := keyFlags(flag.NewFlagSet("fulmar key public", flag.ContinueOnError), args, 1)
	if err != nil {
		return err
	}
	k, err := trust.OpenSigner(words[0], nil)
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
		return "", fmt.Errorf("%w: --type %q is none; wants keyset, release, assignment, freshness, time, pcrs, command or audit-head", ErrUsage, word)
	}
	return t, nil
}

func keySign(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("fulmar key sign", flag.ContinueOnError)
	word, out := f.String("type", "", ""), f.String("out", "", "")
	words, err := keyFlags(f, args, 2)
	if err != nil {
		return err
	}
	if (*word == "") != (*out == "") {
		return fmt.Errorf("%w: --type and --out make an envelope of a file, neither adds a signature to one", ErrUsage)
	}
	var e *trust.Envelope
	if *word == "" {
		*out = words[1]
		e, err = readEnvelope(words[1])
	} else {
		var t trust.Type
		if t, err = typeOf(*word); err != nil {
			return err
		}
		if _, serr := os.Lstat(*out); !errors.Is(serr, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already; without --type and --out a signature is added to it", *out)
		}
		var payload []byte
		if payload, err = readBounded(words[1], trust.MaxPayload); err == nil {
			e, err = trust.NewEnvelope(t, payload)
		}
	}
	if err != nil {
		return err
	}
	k, err := trust.OpenSigner(words[0], nil)
	if err != nil {
		return err
	}
	defer k.Close() //nolint:errcheck // the signature is made or it is not
	if err := e.Sign(k); err != nil {
		return err
	}
	if err := writeEnvelope(*out, e); err != nil {
		return err
	}
	describe(stdout, e)
	fmt.Fprintf(stdout, "signed by %s, %d signatures in %s\n", k.ID, len(e.Signatures), *out)
	return nil
}

func keyVerify(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("fulmar key verify", flag.ContinueOnError)
	set, pin, word, out := f.String("set", "", ""), f.String("pin", "", ""), f.String("type", "", ""), f.String("out", "", "")
	epoch := f.Uint64("epoch", 0, "")
	words, err := keyFlags(f, args, 1)
	if err != nil {
		return err
	}
	t, err := typeOf(*word)
	if err != nil {
		return err
	}
	s, err := openSet(*set, *pin)
	if err != nil {
		return err
	}
	e, err := readEnvelope(words[0])
	if err != nil {
		return err
	}
	payload, err := s.Verify(e, t, *epoch)
	if err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	if t == trust.TypeKeySet {
		next, err := s.Next(e)
		if err != nil {
			return fmt.Errorf("%s: %w", words[0], err)
		}
		fmt.Fprintf(stdout, "key set %d may follow key set %d\npin %x\n", next.Version, s.Version, next.Pin())
	} else {
		fmt.Fprintf(stdout, "signed by enough keys of role %s of key set %d at epoch %d\n", t.Role(), s.Version, *epoch)
	}
	if *out != "" {
		return atomicfile.WriteFile(*out, payload, 0o644)
	}
	return nil
}

// openSet opens a key set file. Without a pin it is what the person says it is.
func openSet(path, pin string) (*trust.KeySet, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: --set FILE names the key set", ErrUsage)
	}
	e, err := readEnvelope(path)
	if err != nil {
		return nil, err
	}
	want := sha256.Sum256(e.Unverified())
	if pin != "" {
		b, err := hex.DecodeString(pin)
		if err != nil || len(b) != len(want) {
			return nil, fmt.Errorf("%w: --pin wants 64 hex digits", ErrUsage)
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
