// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"io"

	"fulmar/internal/ustar"
	"fulmar/ota/release"
	"fulmar/trust"
)

// of tells whether a manifest is the one that an envelope holds.
func of(envelope []byte, m *release.Opened) error {
	if e, err := trust.ParseEnvelope(envelope); err != nil || sha256.Sum256(e.Unverified()) != m.Hash {
		return bad("release %s is not its manifest", m.Release)
	}
	return nil
}

// next goes to the next entry; nil at the end.
func next(t *ustar.Reader) (*ustar.Entry, error) {
	e, err := t.Next()
	if err == io.EOF {
		return nil, nil
	}
	if err != nil {
		return nil, form(err)
	}
	return &e, nil
}

// order holds the objects of a bundle to its manifest.
type order struct {
	m      *release.Opened
	wanted []release.Object
	have   map[release.Hash]ustar.Entry
}

func newOrder(m *release.Opened) *order {
	return &order{m, Objects(m.Manifest), map[release.Hash]ustar.Entry{}}
}

// take takes what comes next.
func (o *order) take(e ustar.Entry) (release.Object, error) {
	h, ok := tree(e.Name)
	for ok && len(o.wanted) > 0 && o.wanted[0].Tree != h {
		o.wanted = o.wanted[1:]
	}
	if !ok || len(o.wanted) == 0 || o.wanted[0].Size != e.Size {
		return release.Object{}, bad("%s of %d bytes is not what the manifest has next", e.Name, e.Size)
	}
	o.have[h] = e
	return o.wanted[0], nil
}

// end tells whether each file came in a way that wants no base.
func (o *order) end() error {
	for i := range o.m.Components {
		for j := range o.m.Components[i].Files {
			if f := &o.m.Components[i].Files[j]; !brings(o.have, f) {
				return bad("%s of %s is not in it, but for patches", f.Path, o.m.Components[i].Name)
			}
		}
	}
	return nil
}

// brings tells whether a file is there as it is, or by an encoding that wants no base.
func brings(have map[release.Hash]ustar.Entry, f *release.File) bool {
	_, ok := have[f.Tree]
	for i := range f.Encodings {
		if e := &f.Encodings[i]; !ok && e.From == nil {
			_, ok = have[e.Tree]
		}
	}
	return ok
}

// Stream reads a bundle that comes as a stream, to its end: over a socket, from a pipe. The
// rules are those of [Open] and [Bundle.Index].
type Stream struct {
	t        *ustar.Reader
	envelope []byte
	keySets  [][]byte
	versions []uint64
	entry    *ustar.Entry // read, and not given yet; nil at the end
	order    *order
}

// Read reads the signed manifest and the key sets, which it holds: at most MaxKeySets, of
// trust.MaxEnvelope bytes. Nothing is verified yet.
func Read(r io.Reader) (*Stream, error) {
	s := &Stream{t: ustar.NewReader(r, limits())}
	var err error
	s.envelope, s.entry, err = head(s.t, func(n uint64, _ ustar.Entry) error {
		text, err := io.ReadAll(s.t)
		if err != nil {
			return form(err)
		}
		s.keySets, s.versions = append(s.keySets, text), append(s.versions, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Envelope is the signed manifest, as release.Open takes it.
func (s *Stream) Envelope() []byte { return s.envelope }

// Follow is [Bundle.Follow].
func (s *Stream) Follow(set *trust.KeySet, took func(envelope []byte) error) (*trust.KeySet, error) {
	return follow(set, s.versions, func(i int) ([]byte, error) { return s.keySets[i], nil }, took)
}

// Directives gives the director's words one by one until each says no more; before the first
// Next, which passes over them.
func (s *Stream) Directives(each func(*Directed) (more bool)) error {
	if s.entry == nil || s.entry.Name != directivesName {
		return nil
	}
	if s.entry.Size <= MaxDirectives {
		if err := Lines(s.t, each); err != nil {
			return err
		}
	}
	return s.pass()
}

// pass goes past the directives.
func (s *Stream) pass() (err error) {
	if s.entry == nil || s.entry.Name != directivesName {
		return nil
	}
	if s.entry.Size > MaxDirectives {
		return bad("%s of %d bytes, at most %d", s.entry.Name, s.entry.Size, MaxDirectives)
	}
	s.entry, err = next(s.t)
	return err
}

// Next goes to the next object and gives its bytes, that many of them: io.EOF after the last
// one of a whole bundle, with all that the manifest needs. m is what Envelope was opened to,
// the same each time. Whether the bytes are the right ones is for whoever reads them to
// find out.
func (s *Stream) Next(m *release.Opened) (o release.Object, r io.Reader, err error) {
	if s.order == nil {
		if err := of(s.envelope, m); err != nil {
			return o, nil, err
		}
		s.order = newOrder(m)
		if err := s.pass(); err != nil {
			return o, nil, err
		}
	} else if s.entry != nil {
		if s.entry, err = next(s.t); err != nil {
			return o, nil, err
		}
	}
	if s.entry == nil {
		if err := s.order.end(); err != nil {
			return o, nil, err
		}
		return o, nil, io.EOF
	}
	o, err = s.order.take(*s.entry)
	return o, s.t, err
}
