// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package cut makes a release out of folders of files: it describes them, packs many small
// ones into one, and makes the ways in which each can travel.
package cut

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

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	rel "fulmar/ota/release"
	wire "fulmar/schema/ota"
)

// Options are what a release is cut of.
type Options struct {
	Name, Notes, Out string
	Epoch            uint64
	Parts            []string // COMPONENT=PATH@VERSION
	Needs, Health    []string // COMPONENT:KEY=VALUE,...
	From, Pack       []string // folders of earlier releases; components
	Say              *source.Progress

	objects string // the folder of objects, while it is made
}

// Run cuts it: a new folder, whole or not at all.
func Run(ctx context.Context, k *Options) (out *source.Release, err error) {
	if len(k.From) >= rel.MaxEncodings {
		return nil, fmt.Errorf("%w: %d earlier releases, at most %d: the fleet makes patches for what else runs in the field", cli.ErrUsage, len(k.From), rel.MaxEncodings-1)
	}
	m, parts, err := k.plan()
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(k.Out); !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Exists, "%s is there already; choose another folder", k.Out)
	}
	old, err := source.OpenAll(k.From)
	if err != nil {
		return nil, err
	}
	defer source.CloseAll(old)
	// Under another name until it is whole.
	if err := os.MkdirAll(filepath.Dir(k.Out), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(k.Out), ".release-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	k.objects = filepath.Join(tmp, source.ObjectsDir)
	if err := os.Mkdir(k.objects, 0o755); err != nil {
		return nil, err
	}
	for i := range m.Components {
		if err := k.component(ctx, &m.Components[i], parts[i].path, old); err != nil {
			return nil, err
		}
	}
	k.Say.Clear()
	payload, err := fits(m)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(filepath.Join(tmp, source.ManifestFile), payload, 0o644); err != nil {
		return nil, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	if err := errors.Join(atomicfile.SyncDir(k.objects), os.Rename(tmp, k.Out), atomicfile.SyncDir(filepath.Dir(k.Out))); err != nil {
		return nil, err
	}
	return &source.Release{Name: k.Out, Payload: payload, Manifest: m, Dir: k.Out}, nil
}

// plan reads the words of the flags, before anything is read from a disk.
func (k *Options) plan() (*rel.Manifest, []part, error) {
	m := &rel.Manifest{V: 1, Release: k.Name, Epoch: k.Epoch, Notes: k.Notes}
	var parts []part
	for _, text := range k.Parts {
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
	for _, text := range k.Needs {
		if err := pairs("needs", text, known(func(c *rel.Component, key, value string) error { return need(&c.Needs, key, value) })); err != nil {
			return nil, nil, err
		}
	}
	for _, text := range k.Health {
		if err := pairs("health", text, known(func(c *rel.Component, key, value string) error { return health(&c.Health, key, value) })); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range k.Pack {
		if m.Component(name) == nil {
			return nil, nil, fmt.Errorf("%w: --pack %s: there is no such --component", cli.ErrUsage, name)
		}
	}
	return m, parts, nil
}

// component describes the files of one and makes their encodings.
func (k *Options) component(ctx context.Context, c *rel.Component, path string, old []*source.Release) error {
	files, err := collect(path)
	if err != nil {
		return fmt.Errorf("component %s: %w", c.Name, err)
	}
	if strings.HasPrefix(c.Name, "model/") || slices.Contains(k.Pack, c.Name) {
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
func (k *Options) describe(ctx context.Context, component string, in *found, old []*source.Release) (*rel.File, error) {
	if in.size == 0 {
		return nil, fault.New(fault.NotTaken, "it is empty; --pack %s takes empty files too", component)
	}
	r, err := in.open()
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	k.Say.Step("%s/%s, %s: read", component, in.path, source.Size(in.size))
	f := &rel.File{Path: in.path, Unpack: in.unpacked > 0, Unpacked: in.unpacked}
	if f.Object, err = k.add(r.SectionReader); err != nil {
		return nil, err
	}
	f.Encodings, err = k.encodings(ctx, component, f, r.SectionReader, old)
	return f, err
}

// add puts an object into the folder under its tree.
func (k *Options) add(r *io.SectionReader) (o rel.Object, err error) {
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
		return nil, fault.New(fault.TooLarge, "the manifest has %d bytes, with two signatures %d, and a board takes %d\n  do: %s", len(payload), envelopeOf(payload), wire.MaxEnvelope, Smaller(m))
	}
	return payload, err
}

// Smaller tells what would help most.
func Smaller(m *rel.Manifest) string {
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
