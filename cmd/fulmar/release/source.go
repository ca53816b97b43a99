// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/cmd/fulmar/fault"
	"fulmar/ota/bundle"
	rel "fulmar/ota/release"
	"fulmar/trust"
)

// What lies in the folder of a release.
const (
	manifestFile = "manifest.json" // what is signed
	envelopeFile = "release.json"  // it with its signatures
	objectsDir   = "objects"       // each under the root of its tree
)

// source is a release as a person names it: a folder, a bundle, or a manifest alone.
type source struct {
	name     string
	envelope *trust.Envelope // nil where nobody has signed
	text     []byte          // of the envelope
	payload  []byte
	m        *rel.Manifest
	dir      string         // "" but for a folder
	bundle   *bundle.Bundle // nil but for a bundle
	file     *os.File
}

// errNoObject: a release without an object that its manifest names.
var errNoObject = errors.New("the object is not here")

// object is one opened to be read at any place.
type object struct {
	*io.SectionReader
	close func() error
}

// Close lets it go.
func (o *object) Close() error { return o.close() }

// open opens a release and reads its manifest, believing nobody yet.
func open(name string) (*source, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	s := &source{name: name}
	switch {
	case st.IsDir():
		s.dir = name
		err = s.openDir()
	case st.Mode().IsRegular():
		err = s.openFile(st.Size())
	default:
		err = fault.New(fault.NoRelease, "%s is neither a folder nor a file", name)
	}
	if err == nil {
		if s.envelope != nil {
			s.payload = s.envelope.Unverified()
		}
		if s.m, err = rel.Parse(s.payload); err != nil {
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
func (s *source) Close() {
	if s.file != nil {
		_ = s.file.Close() // only read
	}
}

func (s *source) openDir() error {
	payload, err := readBounded(filepath.Join(s.dir, manifestFile), rel.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NoRelease, "%s has no %s: fulmar release create --out makes such a folder", s.dir, manifestFile)
	}
	if err != nil {
		return err
	}
	s.payload = payload
	text, err := readBounded(filepath.Join(s.dir, envelopeFile), trust.MaxEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.signed(text); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir, envelopeFile), err)
	}
	if !bytes.Equal(s.envelope.Unverified(), payload) {
		return fault.New(fault.NoRelease, "%s: %s signs another manifest than %s is; remove the one that is wrong", s.dir, envelopeFile, manifestFile)
	}
	return nil
}

// openFile opens a bundle, an envelope or a manifest.
func (s *source) openFile(size int64) (err error) {
	if size <= trust.MaxEnvelope {
		text, err := readBounded(s.name, trust.MaxEnvelope)
		if err != nil {
			return err
		}
		if len(text) > 0 && text[0] == '{' {
			if s.signed(text) != nil {
				s.payload = text // a manifest, or it is told that it is none
			}
			return nil
		}
	}
	if s.file, err = os.Open(s.name); err != nil {
		return err
	}
	if s.bundle, err = bundle.Open(s.file, size); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return s.signed(s.bundle.Envelope())
}

func (s *source) signed(text []byte) error {
	e, err := trust.ParseEnvelope(text)
	if err != nil {
		return err
	}
	if e.Type != trust.TypeRelease {
		return fmt.Errorf("%w: envelope of type %.100q, wants %q", trust.ErrMalformed, e.Type, trust.TypeRelease)
	}
	s.envelope, s.text = e, text
	return nil
}

// hash is the SHA-256 of the manifest.
func (s *source) hash() rel.Hash { return sha256.Sum256(s.payload) }

// index makes the objects of a bundle known; for all else it does nothing. Its manifest is
// verified by whoever calls, or nobody acts upon what is shown.
func (s *source) index() error {
	if s.bundle == nil {
		return nil
	}
	return s.bundle.Index(&rel.Opened{Manifest: s.m, Hash: s.hash(), Raw: s.payload})
}

// object opens one; errNoObject where it is not there.
func (s *source) object(o rel.Object) (*object, error) {
	if s.bundle != nil {
		if r := s.bundle.Object(o); r != nil {
			return &object{r, func() error { return nil }}, nil
		}
		return nil, errNoObject
	}
	if s.dir == "" {
		return nil, errNoObject
	}
	f, err := os.Open(filepath.Join(s.dir, objectsDir, o.Tree.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoObject
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
	return &object{io.NewSectionReader(f, 0, o.Size), f.Close}, nil
}

func readBounded(path string, limit int) ([]byte, error) {
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
