// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	rel "fulmar/ota/release"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

func signCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sign KEY... RELEASE", Short: "sign a release, or add a signature", Args: cobra.MinimumNArgs(2),
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
	s, err := open(target)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.bundle != nil {
		return fmt.Errorf("%w: %s is a bundle; sign the folder, and bundle it anew", cli.ErrUsage, target)
	}
	out := target
	if s.dir != "" {
		out = filepath.Join(target, envelopeFile)
	} else if s.envelope == nil {
		out = filepath.Join(filepath.Dir(target), envelopeFile)
		if other, err := open(out); err == nil {
			other.Close()
			if other.envelope == nil || other.hash() != s.hash() {
				return fault.New(fault.Exists, "%s is there already, and signs another manifest", out)
			}
			s.envelope = other.envelope
		}
	}
	if s.envelope == nil {
		if s.envelope, err = trust.NewEnvelope(trust.TypeRelease, s.payload); err != nil {
			return err
		}
	}
	// Before it is signed: who signs offline has nothing but this to look at.
	if err := s.picture(stdout, nil); err != nil {
		return err
	}
	for _, ref := range refs {
		k, err := trust.OpenSigner(ref, nil)
		if err != nil {
			return err
		}
		err = s.envelope.Sign(k)
		_ = k.Close() // the signature is made or it is not
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "signed by %s\n", k.ID)
	}
	text, err := s.envelope.Encode()
	if err != nil {
		return err
	}
	if len(text) > wire.MaxEnvelope {
		return fault.New(fault.TooLarge, "signed it has %d bytes, and a board takes %d\n  do: %s", len(text), wire.MaxEnvelope, smaller(s.m))
	}
	if err := atomicfile.WriteFile(out, text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s holds %d signatures\nnext: fulmar release verify --set KEYSET %s\n", out, len(s.envelope.Signatures), target)
	return nil
}

// opened is the release as the keys of a set vouch for it. A bundle may lead to a newer set.
func (s *source) opened(set *trust.KeySet, epoch uint64) (*rel.Opened, *trust.KeySet, error) {
	if s.envelope == nil {
		return nil, set, fault.New(fault.Unsigned, "%s: nobody has signed it", s.name)
	}
	if s.bundle != nil {
		var err error
		if set, err = s.bundle.Follow(set, nil); err != nil {
			return nil, set, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	o, err := rel.Open(set, s.text, epoch)
	if err != nil {
		return nil, set, fmt.Errorf("%s: %w", s.name, err)
	}
	return o, set, nil
}
