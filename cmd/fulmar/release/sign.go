// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/release/cut"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

func signCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sign KEY... RELEASE", Short: "sign a release, or add a signature",
		Args: func(c *cobra.Command, words []string) error {
			if len(words) < 2 {
				return fmt.Errorf("%w: %s wants at least one KEY and a RELEASE", cli.ErrUsage, c.CommandPath())
			}
			return nil
		},
		Long: `RELEASE is a folder, its manifest.json alone, carried to where the key is, or the
release.json that it becomes there. Carried back, that goes into the folder. What is
signed is shown.

KEY is file:PATH, or "exec:PROGRAM ARGUMENTS", an external signer.`,
		Example: `  fulmar release sign file:release.pem releases/1.9.0
  fulmar release sign file:/media/key/release.pem /media/carry/manifest.json`,
		RunE: func(c *cobra.Command, words []string) error {
			last := len(words) - 1
			return sign(words[:last], words[last], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

func sign(refs []string, target string, stdout, stderr io.Writer) error {
	s, err := source.Open(target)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Bundle != nil {
		return fmt.Errorf("%w: %s is a bundle; sign the folder, and bundle it anew", cli.ErrUsage, target)
	}
	out := target
	if s.Dir != "" {
		out = filepath.Join(target, source.EnvelopeFile)
	} else if s.Envelope == nil {
		out = filepath.Join(filepath.Dir(target), source.EnvelopeFile)
		if other, err := source.Open(out); err == nil {
			other.Close()
			if other.Envelope == nil || other.Hash() != s.Hash() {
				return fault.New(fault.Exists, "%s is there already, and signs another manifest", out)
			}
			s.Envelope = other.Envelope
		}
	}
	if s.Envelope == nil {
		if s.Envelope, err = trust.NewEnvelope(trust.TypeRelease, s.Payload); err != nil {
			return err
		}
	}
	// Before it is signed: who signs offline has nothing but this to look at.
	if err := picture(stdout, s, nil); err != nil {
		return err
	}
	for _, ref := range refs {
		k, err := trust.OpenSigner(ref, nil)
		if err != nil {
			return err
		}
		err = s.Envelope.Sign(k)
		_ = k.Close() // the signature is made or it is not
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "signed by %s\n", k.ID)
	}
	text, err := s.Envelope.Encode()
	if err != nil {
		return err
	}
	if len(text) > wire.MaxEnvelope {
		return fault.New(fault.TooLarge, "signed it has %d bytes, and a board takes %d\n  do: %s", len(text), wire.MaxEnvelope, cut.Smaller(s.Manifest))
	}
	if err := atomicfile.WriteFile(out, text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "signatures in %s: %d\nnext: fulmar release verify --set KEYSET %s\n", out, len(s.Envelope.Signatures), target)
	return nil
}
