// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package source is a release as a person names it: the folder that it was made in, a
// bundle, or its manifest alone.
package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/cmd/fulmar/fault"
	"fulmar/ota/bundle"
	"fulmar/ota/delta"
	maker "fulmar/ota/delta/make"
	rel "fulmar/ota/release"
	"fulmar/trust"
)

// What lies in the folder of a release.
const (
	ManifestFile = "manifest.json" // what is signed
	EnvelopeFile = "release.json"  // it with its signatures
	ObjectsDir   = "objects"       // each under the root of its tree
)

// Release is one as a person names it.
type Release struct {
	Name     string
	Envelope *trust.Envelope // nil where nobody has signed
	Text     []byte          // of the envelope
	Payload  []byte          // what is signed
	Manifest *rel.Manifest
	Dir      string         // "" but for a folder
	Bundle   *bundle.Bundle // nil but for a bundle

	file *os.File
}

// MaxFile is the largest file that travels in another way than as it is: what patches are
// made of.
const MaxFile = maker.MaxFile

// ErrNoObject: a release without an object that its manifest names.
var ErrNoObject = errors.New("the object is not here")

// Object is one opened to be read at any place.
type Object struct {
	*io.SectionReader
	close func() error
}

// NewObject makes one; end lets it go and may be nil.
func NewObject(r *io.SectionReader, end func() error) *Object { return &Object{r, end} }

// Close lets it go.
func (o *Object) Close() error {
	if o.close == nil {
		return nil
	}
	return o.close()
}

// Open opens a release and reads its manifest, believing nobody yet.
func Open(name string) (*Release, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	s := &Release{Name: name}
	switch {
	case st.IsDir():
		s.Dir = name
		err = s.openDir()
	case st.Mode().IsRegular():
		err = s.openFile(st.Size())
	default:
		err = fault.New(fault.NoRelease, "%s is neither a folder nor a file", name)
	}
	if err == nil {
		if s.Envelope != nil {
			s.Payload = s.Envelope.Unverified()
		}
		if s.Manifest, err = rel.Parse(s.Payload); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close lets the file of a bundle go.
func (s *Release) Close() {
	if s.file != nil {
		_ = s.file.Close() // only read
	}
}

func (s *Release) openDir() error {
	payload, err := ReadBounded(filepath.Join(s.Dir, ManifestFile), rel.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NoRelease, "%s has no %s: fulmar release create --out makes such a folder", s.Dir, ManifestFile)
	}
	if err != nil {
		return err
	}
	s.Payload = payload
	text, err := ReadBounded(filepath.Join(s.Dir, EnvelopeFile), trust.MaxEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.signed(text); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.Dir, EnvelopeFile), err)
	}
	if !bytes.Equal(s.Envelope.Unverified(), payload) {
		return fault.New(fault.NoRelease, "%s: %s signs another manifest than %s is; remove the one that is wrong", s.Dir, EnvelopeFile, ManifestFile)
	}
	return nil
}

// openFile opens a bundle, an envelope or a manifest.
func (s *Release) openFile(size int64) (err error) {
	if size <= trust.MaxEnvelope {
		text, err := ReadBounded(s.Name, trust.MaxEnvelope)
		if err != nil {
			return err
		}
		if len(text) > 0 && text[0] == '{' {
			if s.signed(text) != nil {
				s.Payload = text // a manifest, or it is told that it is none
			}
			return nil
		}
	}
	if s.file, err = os.Open(s.Name); err != nil {
		return err
	}
	if s.Bundle, err = bundle.Open(s.file, size); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return s.signed(s.Bundle.Envelope())
}

func (s *Release) signed(text []byte) error {
	e, err := trust.ParseEnvelope(text)
	if err != nil {
		return err
	}
	if e.Type != trust.TypeRelease {
		return fmt.Errorf("%w: envelope of type %.100q, wants %q", trust.ErrMalformed, e.Type, trust.TypeRelease)
	}
	s.Envelope, s.Text = e, text
	return nil
}

// Hash is the SHA-256 of the manifest.
func (s *Release) Hash() rel.Hash { return sha256.Sum256(s.Payload) }

// Index makes the objects of a bundle known; for all else it does nothing. Its manifest is
// verified by whoever calls, or nobody acts upon what is shown.
func (s *Release) Index() error {
	if s.Bundle == nil {
		return nil
	}
	return s.Bundle.Index(&rel.Opened{Manifest: s.Manifest, Hash: s.Hash(), Raw: s.Payload})
}

// Object opens one; ErrNoObject where it is not there.
func (s *Release) Object(o rel.Object) (*Object, error) {
	if s.Bundle != nil {
		if r := s.Bundle.Object(o); r != nil {
			return NewObject(r, nil), nil
		}
		return nil, ErrNoObject
	}
	if s.Dir == "" {
		return nil, ErrNoObject
	}
	f, err := os.Open(filepath.Join(s.Dir, ObjectsDir, o.Tree.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoObject
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != o.Size {
		err = fault.New(fault.ObjectWrong, "object %s has %d bytes, and the manifest says %d", o.Tree, st.Size(), o.Size)
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return NewObject(io.NewSectionReader(f, 0, o.Size), f.Close), nil
}

// ReadBounded reads a file of at most so many bytes.
func ReadBounded(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, err
}

// OpenAll opens the earlier releases.
func OpenAll(names []string) (out []*Release, err error) {
	for _, n := range names {
		s, err := Open(n)
		if err == nil {
			err = s.Index()
		}
		if err != nil {
			CloseAll(out)
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// CloseAll closes them.
func CloseAll(list []*Release) {
	for _, s := range list {
		s.Close()
	}
}

// Whole gives a file as it is, out of its zstd form where a bundle has only that.
func (s *Release) Whole(ctx context.Context, f *rel.File) (*Object, error) {
	r, err := s.Object(f.Object)
	if !errors.Is(err, ErrNoObject) {
		return r, err
	}
	for _, e := range f.Encodings {
		if e.Codec != delta.Zstd {
			continue
		}
		z, err := s.Object(e.Object)
		if err != nil {
			return nil, err
		}
		defer z.Close()    //nolint:errcheck // only read
		var b bytes.Buffer // at most MaxFile, at a desk
		if err := delta.Apply(ctx, e.Codec, nil, z.SectionReader, delta.Target{Size: f.Size, SHA256: f.SHA256}, delta.Limits{Size: MaxFile}, &b); err != nil {
			return nil, err
		}
		return NewObject(io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, f.Size), nil), nil
	}
	return nil, fmt.Errorf("%s of it: %w", f.Path, ErrNoObject)
}

// Find finds a file by its hash.
func Find(ctx context.Context, sha rel.Hash, in []*Release) (*Object, error) {
	for _, s := range in {
		for i := range s.Manifest.Components {
			for j := range s.Manifest.Components[i].Files {
				if f := &s.Manifest.Components[i].Files[j]; f.SHA256 == sha {
					return s.Whole(ctx, f)
				}
			}
		}
	}
	return nil, ErrNoObject
}

// Objects are those that this source should have: a bundle may leave out files that are
// packed beside.
func (s *Release) Objects() (out []rel.Object) {
	for _, o := range bundle.Objects(s.Manifest) {
		if s.Bundle == nil || s.Bundle.Object(o) != nil {
			out = append(out, o)
		}
	}
	return out
}

// Opened is the release as the keys of a set vouch for it. A bundle may lead to a newer set.
func (s *Release) Opened(set *trust.KeySet, epoch uint64) (*rel.Opened, *trust.KeySet, error) {
	if s.Envelope == nil {
		return nil, set, fault.New(fault.Unsigned, "%s: nobody has signed it", s.Name)
	}
	if s.Bundle != nil {
		var err error
		if set, err = s.Bundle.Follow(set, nil); err != nil {
			return nil, set, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	o, err := rel.Open(set, s.Text, epoch)
	if err != nil {
		return nil, set, fmt.Errorf("%s: %w", s.Name, err)
	}
	return o, set, nil
}
