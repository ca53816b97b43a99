// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"

	"fulmar/internal/ustar"
	"fulmar/ota/release"
	"fulmar/trust"
)

// alone tells whether a file has an encoding that is applied to nothing.
func alone(f *release.File) bool {
	for i := range f.Encodings {
		if f.Encodings[i].From == nil {
			return true
		}
	}
	return false
}

// Objects are all that a manifest names, each once, in the order in which a bundle has
// them: of each file its encodings, then the file.
func Objects(m *release.Manifest) (out []release.Object) {
	seen := map[release.Hash]bool{}
	add := func(o release.Object) {
		if !seen[o.Tree] {
			seen[o.Tree] = true
			out = append(out, o)
		}
	}
	for i := range m.Components {
		for j := range m.Components[i].Files {
			f := &m.Components[i].Files[j]
			for _, e := range f.Encodings {
				add(e.Object)
			}
			add(f.Object)
		}
	}
	return out
}

// Contents is what goes into a bundle.
type Contents struct {
	Envelope []byte // the signed manifest
	// KeySets are envelopes of key sets, each the next one of the one before.
	KeySets    [][]byte
	Directives []byte // lines, see Directed
	// Open gives the bytes of an object.
	Open func(release.Object) (io.ReadCloser, error)
	// Progress, if not nil, is told how many bytes of objects are written, of how many.
	Progress func(n, total int64)
}

// Write writes a bundle: the same bytes for the same contents. It checks forms and hashes,
// and no signature.
func Write(w io.Writer, c *Contents) error {
	e, err := trust.ParseEnvelope(c.Envelope)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	m, err := release.Parse(e.Unverified())
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	t := ustar.NewWriter(w)
	if err := put(t, manifestName, c.Envelope); err != nil {
		return err
	}
	if err := c.writeKeySets(t); err != nil {
		return err
	}
	if len(c.Directives) > MaxDirectives {
		return bad("directives of %d bytes, at most %d", len(c.Directives), MaxDirectives)
	}
	if len(c.Directives) > 0 {
		if err := put(t, directivesName, c.Directives); err != nil {
			return err
		}
	}
	if err := c.writeObjects(t, m); err != nil {
		return err
	}
	return t.Close()
}

func put(t *ustar.Writer, name string, b []byte) error {
	err := t.Create(name, int64(len(b)))
	if err == nil {
		_, err = t.Write(b)
	}
	if err != nil {
		return fmt.Errorf("write bundle: %s: %w", name, err)
	}
	return nil
}

func (c *Contents) writeKeySets(t *ustar.Writer) error {
	last := uint64(0)
	if len(c.KeySets) > MaxKeySets {
		return bad("%d key sets, at most %d: leave out those that every board has", len(c.KeySets), MaxKeySets)
	}
	for _, text := range c.KeySets {
		e, err := trust.ParseEnvelope(text)
		if err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
		s, err := trust.DraftKeySet(e)
		if err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
		if s.Version <= last {
			return bad("key set %d after key set %d: name them by rising version", s.Version, last)
		}
		last = s.Version
		if err := put(t, keySetDir+strconv.FormatUint(s.Version, 10)+jsonEnd, text); err != nil {
			return err
		}
	}
	return nil
}

// needed are the objects that go into a bundle: of a file that has an encoding without a
// base all encodings, else all and the file.
func needed(m *release.Manifest) []release.Object {
	whole := map[release.Hash]bool{} // files as they are that have another way, and are no encoding
	for i := range m.Components {
		for j := range m.Components[i].Files {
			if f := &m.Components[i].Files[j]; alone(f) {
				whole[f.Tree] = true
			}
		}
	}
	for i := range m.Components {
		for j := range m.Components[i].Files {
			f := &m.Components[i].Files[j]
			for _, e := range f.Encodings {
				delete(whole, e.Tree)
			}
			if !alone(f) {
				delete(whole, f.Tree)
			}
		}
	}
	var out []release.Object
	for _, o := range Objects(m) {
		if !whole[o.Tree] {
			out = append(out, o)
		}
	}
	return out
}

func (c *Contents) writeObjects(t *ustar.Writer, m *release.Manifest) error {
	objects := needed(m)
	var n, total int64
	for _, o := range objects {
		total += o.Size
	}
	buf := make([]byte, 256<<10)
	for _, o := range objects {
		if err := t.Create(objectDir+o.Tree.String(), o.Size); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		r, err := c.Open(o)
		if err != nil {
			return fmt.Errorf("bundle: object %s: %w", o.Tree, err)
		}
		sum := sha256.New()
		for {
			k, err := r.Read(buf)
			if k > 0 {
				sum.Write(buf[:k])
				if _, err := t.Write(buf[:k]); err != nil {
					r.Close()
					return fmt.Errorf("write bundle: object %s: %w", o.Tree, err)
				}
				if n += int64(k); c.Progress != nil {
					c.Progress(n, total)
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				r.Close()
				return fmt.Errorf("bundle: object %s: %w", o.Tree, err)
			}
		}
		if err := r.Close(); err != nil {
			return fmt.Errorf("bundle: object %s: %w", o.Tree, err)
		}
		if release.Hash(sum.Sum(nil)) != o.SHA256 {
			return bad("object %s is not what the manifest says: its SHA-256 is another", o.Tree)
		}
	}
	return nil
}
