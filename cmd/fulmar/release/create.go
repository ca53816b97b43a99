// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	rel "fulmar/ota/release"
	wire "fulmar/schema/ota"
)

// creating are the flags of create.
type creating struct {
	name, notes, out string
	epoch            uint64
	parts            []string
	needs, health    []string
	from, pack       []string
	say              *progress
	objects          string // the folder of objects, while it is made
}

func createCommand() *cobra.Command {
	k := new(creating)
	c := &cobra.Command{
		Use: "create --release NAME --epoch N --component COMPONENT=PATH@VERSION --out DIR", Short: "cut a release out of folders of files", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long: `A new folder with the manifest to be signed and all that it names: each file, packed by
zstd, and for boards that run a release that --from names, as a patch.

--needs   KEY is arch, board, l4t_min, l4t_max, tensorrt, space, or a component
          with the least version of it
--health  KEY is within, hold, rate or checks; checks are process, link, drain,
          golden, rate, throttle and boot, with + between them

The epoch is the one of the release before, but where boards must never go back
behind this one.

` + about,
		Example: `  fulmar release create --release 1.9.0 --epoch 3 \
    --component agent=build/agent@1.9.0 --needs agent:arch=arm64,l4t_min=35.4.1 \
    --from releases/1.8.2 --from releases/1.8.1 --out releases/1.9.0
  fulmar release create --release parcels-7 --epoch 3 \
    --component model/parcels=models/parcels@7 \
    --needs model/parcels:agent=1.8,board='NVIDIA Jetson Orin' \
    --health model/parcels:within=15m,hold=2m,rate=0.9 --out releases/parcels-7`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			k.say = newProgress(c.ErrOrStderr())
			return k.run(ctx, c.Flags().Changed("epoch"), c.OutOrStdout())
		},
	}
	fl := c.Flags()
	fl.StringVar(&k.name, "release", "", "its name, as rollouts call it")
	fl.Uint64Var(&k.epoch, "epoch", 0, "boards that have run it install no release of a lower epoch again")
	fl.StringVar(&k.notes, "notes", "", "a few words for people, at most 2,048 bytes")
	fl.StringArrayVar(&k.parts, "component", nil, "a component, the folder or file that it is, its version; may be repeated")
	fl.StringArrayVar(&k.needs, "needs", nil, "what boards must have for a component; may be repeated")
	fl.StringArrayVar(&k.health, "health", nil, "how a component proves itself on trial; may be repeated")
	fl.StringArrayVar(&k.from, "from", nil, "an earlier release, for patches; at most seven, may be repeated")
	fl.StringArrayVar(&k.pack, "pack", nil, "put the small files of a component into one; models are packed anyway")
	fl.StringVar(&k.out, "out", "", "the new folder")
	for flag, value := range map[string]string{
		"release": "NAME", "epoch": "N", "notes": "TEXT", "component": "COMPONENT=PATH@VERSION", "needs": "COMPONENT:KEY=VALUE,...", "health": "COMPONENT:KEY=VALUE,...", "pack": "COMPONENT",
	} {
		cli.Takes(c, flag, value)
	}
	cli.Folder(c, "from")
	cli.Folder(c, "out")
	return c
}

func (k *creating) run(ctx context.Context, epoch bool, stdout io.Writer) (err error) {
	if k.name == "" || !epoch || len(k.parts) == 0 || k.out == "" {
		return fmt.Errorf("%w: fulmar release create wants --release, --epoch, --out and at least one --component", cli.ErrUsage)
	}
	if len(k.from) >= rel.MaxEncodings {
		return fmt.Errorf("%w: %d earlier releases, at most %d: the fleet makes patches for what else runs in the field", cli.ErrUsage, len(k.from), rel.MaxEncodings-1)
	}
	m, parts, err := k.plan()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(k.out); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Exists, "%s is there already; choose another folder", k.out)
	}
	old, err := openAll(k.from)
	if err != nil {
		return err
	}
	defer closeAll(old)
	// Under another name until it is whole.
	if err := os.MkdirAll(filepath.Dir(k.out), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(k.out), ".release-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	k.objects = filepath.Join(tmp, objectsDir)
	if err := os.Mkdir(k.objects, 0o755); err != nil {
		return err
	}
	for i := range m.Components {
		if err := k.component(ctx, &m.Components[i], parts[i].path, old); err != nil {
			return err
		}
	}
	k.say.clear()
	payload, err := fits(m)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(filepath.Join(tmp, manifestFile), payload, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := errors.Join(atomicfile.SyncDir(k.objects), os.Rename(tmp, k.out), atomicfile.SyncDir(filepath.Dir(k.out))); err != nil {
		return err
	}
	s := &source{name: k.out, payload: payload, m: m}
	if err := s.picture(stdout, nil); err != nil {
		return err
	}
	fmt.Fprintf(k.say.w, "next: fulmar release sign KEY %s, or carry %s to where the key is\n", k.out, filepath.Join(k.out, manifestFile))
	return nil
}

// plan reads the words of the flags, before anything is read from a disk.
func (k *creating) plan() (*rel.Manifest, []part, error) {
	m := &rel.Manifest{V: 1, Release: k.name, Epoch: k.epoch, Notes: k.notes}
	var parts []part
	for _, text := range k.parts {
		p, err := parsePart(text)
		if err != nil {
			return nil, nil, err
		}
		if m.Component(p.name) != nil {
			return nil, nil, fmt.Errorf("%w: component %s twice", cli.ErrUsage, p.name)
		}
		parts = append(parts, p)
		m.Components = append(m.Components, rel.Component{Name: p.name, Version: p.version})
	}
	known := func(do func(c *rel.Component, key, value string) error) func(component, key, value string) error {
		return func(component, key, value string) error {
			c := m.Component(component)
			if c == nil {
				return fmt.Errorf("there is no --component %s", component)
			}
			return do(c, key, value)
		}
	}
	for _, text := range k.needs {
		if err := pairs("needs", text, known(func(c *rel.Component, key, value string) error { return need(&c.Needs, key, value) })); err != nil {
			return nil, nil, err
		}
	}
	for _, text := range k.health {
		if err := pairs("health", text, known(func(c *rel.Component, key, value string) error { return health(&c.Health, key, value) })); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range k.pack {
		if m.Component(name) == nil {
			return nil, nil, fmt.Errorf("%w: --pack %s: there is no such --component", cli.ErrUsage, name)
		}
	}
	return m, parts, nil
}

// component describes the files of one and makes their encodings.
func (k *creating) component(ctx context.Context, c *rel.Component, path string, old []*source) error {
	files, err := collect(path)
	if err != nil {
		return fmt.Errorf("component %s: %w", c.Name, err)
	}
	if strings.HasPrefix(c.Name, "model/") || slices.Contains(k.pack, c.Name) {
		if files, err = pack(c.Name, files); err != nil {
			return err
		}
	}
	if len(files) > rel.MaxFiles {
		return fault.New(fault.TooLarge, "component %s has %d files, at most %d\n  do: --pack %s puts the small ones into one", c.Name, len(files), rel.MaxFiles, c.Name)
	}
	for i := range files {
		f, err := k.describe(ctx, c.Name, &files[i], old)
		if err != nil {
			return fmt.Errorf("component %s: %s: %w", c.Name, files[i].path, err)
		}
		c.Files = append(c.Files, *f)
	}
	return nil
}

// describe makes a file an object, with its encodings.
func (k *creating) describe(ctx context.Context, component string, in *found, old []*source) (*rel.File, error) {
	if in.size == 0 {
		return nil, fault.New(fault.NotTaken, "it is empty; --pack %s takes empty files too", component)
	}
	r, err := in.open()
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	k.say.step("%s/%s, %s: read", component, in.path, size(in.size))
	f := &rel.File{Path: in.path, Unpack: in.unpacked > 0, Unpacked: in.unpacked}
	if f.Object, err = k.add(r.SectionReader); err != nil {
		return nil, err
	}
	f.Encodings, err = k.encodings(ctx, component, f, r.SectionReader, old)
	return f, err
}

// add puts an object into the folder under its tree.
func (k *creating) add(r *io.SectionReader) (o rel.Object, err error) {
	if o, _, err = rel.Describe(io.NewSectionReader(r, 0, r.Size())); err != nil {
		return o, err
	}
	to := filepath.Join(k.objects, o.Tree.String())
	if _, err := os.Lstat(to); err == nil {
		return o, nil // another file is the same
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return o, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.NewSectionReader(r, 0, r.Size()))
	if err == nil && (n != o.Size || rel.Hash(sum.Sum(nil)) != o.SHA256) {
		err = errors.New("it changed while it was read")
	}
	if err == nil {
		err = f.Sync()
	}
	return o, errors.Join(err, f.Close())
}

// envelopeOf is how long a manifest is once two keys have signed it.
func envelopeOf(payload []byte) int { return (len(payload)+2)/3*4 + 2*256 + 128 }

// fits encodes a manifest that an assignment can carry to a board.
func fits(m *rel.Manifest) ([]byte, error) {
	payload, err := m.Encode()
	if errors.Is(err, rel.ErrManifest) && payload != nil || err == nil && envelopeOf(payload) > wire.MaxEnvelope {
		return nil, fault.New(fault.TooLarge, "the manifest has %d bytes, with two signatures %d, and a board takes %d\n  do: %s", len(payload), envelopeOf(payload), wire.MaxEnvelope, smaller(m))
	}
	return payload, err
}

// smaller tells what would help most.
func smaller(m *rel.Manifest) string {
	files, patches, most := 0, 0, &m.Components[0]
	for i := range m.Components {
		c := &m.Components[i]
		if files += len(c.Files); len(c.Files) > len(most.Files) {
			most = c
		}
		for _, f := range c.Files {
			patches += len(f.Encodings)
		}
	}
	return show.Clean(fmt.Sprintf("--pack %s puts its small files into one (it has %d of %d); fewer --from make fewer patches (it has %d ways to bring a file); or cut a release for each component",
		most.Name, len(most.Files), files, patches))
}
