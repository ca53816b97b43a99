// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/key"
	"fulmar/internal/cli"
	"fulmar/ota/delta"
	maker "fulmar/ota/delta/make"
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
			return v.run(ctx, words[0], c.OutOrStdout(), newProgress(c.ErrOrStderr()))
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

func (v *verifying) run(ctx context.Context, name string, stdout io.Writer, say *progress) error {
	set, err := key.OpenSet(v.set, v.pin)
	if err != nil {
		return err
	}
	s, err := open(name)
	if err != nil {
		return err
	}
	defer s.Close()
	o, set, err := s.opened(set, v.epoch)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "release %s, epoch %d, SHA-256 %s\n", o.Release, o.Epoch, o.Hash)
	fmt.Fprintf(stdout, "signed by enough release keys of key set %d: %v\n", set.Version, short(o.Signers))
	if s.dir == "" && s.bundle == nil {
		fmt.Fprintf(say.w, "%s is the manifest alone: objects were not looked at\n", name)
		return nil
	}
	if s.bundle != nil {
		if err := s.bundle.Index(o); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	old, err := openAll(v.from)
	if err != nil {
		return err
	}
	defer closeAll(old)
	done, err := s.check(ctx, append(old, s), say)
	say.clear()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(stdout, "%d objects of %s are there and right\n%d files packed or patched came out right\n", done.objects, size(done.bytes), done.applied)
	if done.baseless > 0 {
		fmt.Fprintf(say.w, "%d patches were not applied: the files that they are made from are not here; --from RELEASE names where they are\n", done.baseless)
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
func (s *source) check(ctx context.Context, bases []*source, say *progress) (done checked, err error) {
	for _, o := range s.objects() {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		say.step("object %.16s, %s", o.Tree, size(o.Size))
		if err := s.right(o); err != nil {
			return done, err
		}
		done.objects++
		done.bytes += o.Size
	}
	for i := range s.m.Components {
		c := &s.m.Components[i]
		for j := range c.Files {
			f := &c.Files[j]
			if f.Unpack {
				if err := s.unpacks(ctx, f); err != nil {
					return done, fmt.Errorf("%s: %w", c.Name, err)
				}
			}
			for _, e := range f.Encodings {
				say.step("%s/%s, %s by %s", c.Name, f.Path, size(f.Size), e.Codec)
				err := s.apply(ctx, f, &e, bases)
				switch {
				case errors.Is(err, errNoObject):
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
func (s *source) right(o rel.Object) error {
	r, err := s.object(o)
	if errors.Is(err, errNoObject) {
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

func (s *source) unpacks(ctx context.Context, f *rel.File) error {
	r, err := s.whole(ctx, f)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	return unpackable(r, f)
}

// apply makes the file as a board would; errNoObject where its base, or the patch, is not here.
func (s *source) apply(ctx context.Context, f *rel.File, e *rel.Encoding, bases []*source) error {
	p, err := s.object(e.Object)
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // only read
	var base *io.SectionReader
	if e.From != nil {
		b, err := find(ctx, *e.From, bases)
		if err != nil {
			return err
		}
		defer b.Close() //nolint:errcheck // only read
		base = b.SectionReader
	}
	return delta.Apply(ctx, e.Codec, base, p.SectionReader, delta.Target{Size: f.Size, SHA256: f.SHA256}, delta.Limits{Size: maker.MaxFile}, io.Discard)
}

// find finds a file by its hash.
func find(ctx context.Context, sha rel.Hash, in []*source) (*object, error) {
	for _, s := range in {
		for i := range s.m.Components {
			for j := range s.m.Components[i].Files {
				if f := &s.m.Components[i].Files[j]; f.SHA256 == sha {
					return s.whole(ctx, f)
				}
			}
		}
	}
	return nil, errNoObject
}
