// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/key"
	"fulmar/cmd/fulmar/release/cut"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/internal/cli"
	"fulmar/ota/delta"
	rel "fulmar/ota/release"
)

// verifying are the flags of verify.
type verifying struct {
	set, pin string
	epoch    uint64
	from     []string
}

func verifyCommand() *cobra.Command {
	v := new(verifying)
	c := &cobra.Command{
		Use: "verify --set KEYSET RELEASE", Short: "is it signed, and is all that it names there and right", Args: cli.Words("a RELEASE"),
		Long: `The signatures as a board judges them, each object by its hashes, and each way in which a
file can travel by going it: packed files are unpacked, patches are applied to the files
of the releases that --from names.

` + about,
		Example: `  fulmar release verify --set keyset-2.json --from releases/1.8.2 releases/1.9.0
  fulmar release verify --set keyset-1.json fulmar-1.9.0.tar`,
		RunE: func(c *cobra.Command, words []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			return v.run(ctx, words[0], c.OutOrStdout(), source.NewProgress(c.ErrOrStderr()))
		},
	}
	c.Flags().StringVar(&v.set, "set", "", "the key set that says who may sign")
	c.Flags().StringVar(&v.pin, "pin", "", "the SHA-256 that the set must have; without it the file is believed")
	c.Flags().Uint64Var(&v.epoch, "epoch", 0, "the floor of the boards that are to take it")
	c.Flags().StringArrayVar(&v.from, "from", nil, "an earlier release, whose files patches are applied to; may be repeated")
	cli.Takes(c, "pin", "HEX")
	cli.Takes(c, "epoch", "N")
	cli.File(c, "set")
	cli.Folder(c, "from")
	return c
}

func (v *verifying) run(ctx context.Context, name string, stdout io.Writer, say *source.Progress) error {
	set, err := key.OpenSet(v.set, v.pin)
	if err != nil {
		return err
	}
	s, err := source.Open(name)
	if err != nil {
		return err
	}
	defer s.Close()
	o, set, err := s.Opened(set, v.epoch)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "release %s, epoch %d, SHA-256 %s\n", o.Release, o.Epoch, o.Hash)
	fmt.Fprintf(stdout, "signed by enough release keys of key set %d: %s\n", set.Version, strings.Join(short(o.Signers), ", "))
	if s.Dir == "" && s.Bundle == nil {
		fmt.Fprintf(say.W, "%s is the manifest alone: objects were not looked at\n", name)
		return nil
	}
	if s.Bundle != nil {
		if err := s.Bundle.Index(o); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	old, err := source.OpenAll(v.from)
	if err != nil {
		return err
	}
	defer source.CloseAll(old)
	done, err := check(ctx, s, append(old, s), say)
	say.Clear()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(stdout, "objects there and right: %d, %s\nfiles that came out right, packed or patched: %d\n", done.objects, source.Size(done.bytes), done.applied)
	if done.baseless > 0 {
		fmt.Fprintf(say.W, "patches not applied, since the files that they are made from are not here: %d; --from RELEASE names where they are\n", done.baseless)
	}
	return nil
}

// checked is what check has seen.
type checked struct {
	objects, applied, baseless int
	bytes                      int64
}

// check reads all objects and goes each way in which a file can travel. bases are where files
// to apply patches to may be.
func check(ctx context.Context, s *source.Release, bases []*source.Release, say *source.Progress) (done checked, err error) {
	for _, o := range s.Objects() {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		say.Step("object %.16s, %s", o.Tree, source.Size(o.Size))
		if err := right(s, o); err != nil {
			return done, err
		}
		done.objects++
		done.bytes += o.Size
	}
	for i := range s.Manifest.Components {
		c := &s.Manifest.Components[i]
		for j := range c.Files {
			f := &c.Files[j]
			if f.Unpack {
				if err := unpacks(ctx, s, f); err != nil {
					return done, fmt.Errorf("%s: %w", c.Name, err)
				}
			}
			for _, e := range f.Encodings {
				say.Step("%s/%s, %s by %s", c.Name, f.Path, source.Size(f.Size), e.Codec)
				err := apply(ctx, s, f, &e, bases)
				switch {
				case errors.Is(err, source.ErrNoObject):
					done.baseless++
				case err != nil:
					return done, fault.Mark(fault.ObjectWrong, fmt.Errorf("%s/%s by %s: %w", c.Name, f.Path, e.Codec, err))
				default:
					done.applied++
				}
			}
		}
	}
	return done, nil
}

// right holds an object to both of its hashes.
func right(s *source.Release, o rel.Object) error {
	r, err := s.Object(o)
	if errors.Is(err, source.ErrNoObject) {
		return fault.New(fault.ObjectWrong, "object %s of %d bytes is not there", o.Tree, o.Size)
	}
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	got, _, err := rel.Describe(r)
	if err != nil {
		return fmt.Errorf("object %s: %w", o.Tree, err)
	}
	if got != o {
		return fault.New(fault.ObjectWrong, "object %s is another: its SHA-256 is %s, and the manifest says %s", o.Tree, got.SHA256, o.SHA256)
	}
	return nil
}

func unpacks(ctx context.Context, s *source.Release, f *rel.File) error {
	r, err := s.Whole(ctx, f)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	return cut.Unpackable(r, f)
}

// apply makes the file as a board would; source.ErrNoObject where its base, or the patch, is not here.
func apply(ctx context.Context, s *source.Release, f *rel.File, e *rel.Encoding, bases []*source.Release) error {
	p, err := s.Object(e.Object)
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // only read
	var base *io.SectionReader
	if e.From != nil {
		b, err := source.Find(ctx, *e.From, bases)
		if err != nil {
			return err
		}
		defer b.Close() //nolint:errcheck // only read
		base = b.SectionReader
	}
	return delta.Apply(ctx, e.Codec, base, p.SectionReader, delta.Target{Size: f.Size, SHA256: f.SHA256}, delta.Limits{Size: source.MaxFile}, io.Discard)
}
