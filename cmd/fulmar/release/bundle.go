// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	"fulmar/ota/bundle"
	rel "fulmar/ota/release"
	"fulmar/trust"
)

// bundling are the flags of bundle.
type bundling struct {
	out, directives string
	keySets         []string
}

func bundleCommand() *cobra.Command {
	k := new(bundling)
	c := &cobra.Command{
		Use: "bundle --out FILE RELEASE", Short: "a signed release in one file, for a stick", Args: cli.Words("a RELEASE"),
		Long: `The file is a plain tar: the signed manifest first, then key sets, directives, objects.
Key sets go in the order of their versions, so that a board that was away since the first
can follow them. Directives are the fleet's word for boards of a site without a network;
without them a person at the board who may do so has it installed.

` + about,
		Example: "  fulmar release bundle --keyset keyset-2.json --out fulmar-1.9.0.tar releases/1.9.0",
		RunE: func(c *cobra.Command, words []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			return k.run(ctx, words[0], c.OutOrStdout(), source.NewProgress(c.ErrOrStderr()))
		},
	}
	c.Flags().StringVar(&k.out, "out", "", "the new file")
	c.Flags().StringArrayVar(&k.keySets, "keyset", nil, "a key set that boards may not have yet; may be repeated")
	c.Flags().StringVar(&k.directives, "directives", "", "the fleet's directives for boards")
	cli.File(c, "out", "tar")
	cli.File(c, "keyset", "json")
	cli.File(c, "directives", "jsonl")
	return c
}

func (k *bundling) run(ctx context.Context, name string, stdout io.Writer, say *source.Progress) error {
	if k.out == "" {
		return fmt.Errorf("%w: fulmar release bundle wants --out FILE", cli.ErrUsage)
	}
	s, err := source.Open(name)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Dir == "" {
		return fmt.Errorf("%w: %s is not the folder of a release", cli.ErrUsage, name)
	}
	if s.Envelope == nil {
		return fault.New(fault.Unsigned, "%s: nobody has signed it, so no board takes it", name)
	}
	c := &bundle.Contents{Envelope: s.Text, Progress: say.Bytes("write " + k.out)}
	c.Open = func(o rel.Object) (io.ReadCloser, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return s.Object(o)
	}
	for _, path := range k.keySets {
		text, err := source.ReadBounded(path, trust.MaxEnvelope)
		if err != nil {
			return err
		}
		c.KeySets = append(c.KeySets, text)
	}
	if k.directives != "" {
		if c.Directives, err = readDirectives(k.directives); err != nil {
			return err
		}
	}
	n, err := writeNew(k.out, func(w io.Writer) error { return bundle.Write(w, c) })
	say.Clear()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: release %s in %s; key sets in it: %d\n", k.out, s.Manifest.Release, source.Size(n), len(c.KeySets))
	fmt.Fprintf(say.W, "next: fulmar release verify --set KEYSET %s; at a board: fulmar ota install-bundle FILE\n", k.out)
	return nil
}

func readDirectives(path string) ([]byte, error) {
	b, err := source.ReadBounded(path, bundle.MaxDirectives)
	if err != nil {
		return nil, err
	}
	if err := bundle.Lines(bytes.NewReader(b), func(*bundle.Directed) bool { return true }); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// writeNew writes a file that was not there, whole and durable or not at all, and gives its
// size.
func writeNew(path string, write func(io.Writer) error) (n int64, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return 0, fault.New(fault.Exists, "%s is there already; choose another file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".bundle-")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = write(f)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	st, serr := f.Stat()
	if err = errors.Join(err, serr, f.Close()); err != nil {
		return 0, err
	}
	return st.Size(), errors.Join(os.Rename(f.Name(), path), atomicfile.SyncDir(filepath.Dir(path)))
}
