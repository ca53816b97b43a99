// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package bundle is a release in one file, for a stick or a site without a network.
//
// It is a plain tar (internal/ustar), in this order and nothing beside it:
//
//	release.json        the signed manifest
//	keysets/N.json      key sets by version, so that a board that was away can follow them
//	directives.jsonl    the director's words for boards, if there are any; see [Directed]
//	objects/TREE        what the manifest names: each encoding as it travels, and a file as
//	                    it is only where no encoding of it does without a base
//
// Nothing is packed or compressed around that: objects, which are compressed already, lie at
// an offset of the file and are read in place, from any piece on. So nothing has to be
// unpacked to learn who signed, and no length in it makes a reader hold more than
// its own bounds say. docs/adr/0056 says why.
//
// [Open] reads the first entry. What lies behind it is looked at only with a
// release.Opened in hand, which has been verified.
package bundle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"fulmar/internal/strictjson"
	"fulmar/internal/ustar"
	"fulmar/ota/release"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

const (
	manifestName   = "release.json"
	keySetDir      = "keysets/"
	jsonEnd        = ".json"
	directivesName = "directives.jsonl"
	objectDir      = "objects/"

	// MaxKeySets is how many sets a bundle holds: a rotation each month of a year, with room.
	MaxKeySets = 16
	// MaxDirectives bounds the directives, in bytes: 2,000 boards of one site.
	MaxDirectives = 8 << 20
	// maxLine bounds one of them: statement, head and path in base64.
	maxLine = (wire.MaxStatement+wire.MaxPath+4<<10)/3*4 + 1<<10
	// maxFiles is more than the objects that a manifest of 64 KiB can name.
	maxFiles = 2048
	maxSize  = 256 << 30 // bytes of all: a root file system, a card of that size
)

// ErrBundle: no bundle, or one that contradicts itself or its manifest.
var ErrBundle = errors.New("not a bundle of a release")

// Bundle is an opened file. It is read by [io.ReaderAt], so it may be read from side by side.
type Bundle struct {
	r          io.ReaderAt
	size       int64
	envelope   []byte
	keySets    []ustar.Entry
	versions   []uint64
	directives *ustar.Entry
	objects    map[release.Hash]ustar.Entry
}

// name tells whether an entry may be called so.
func name(s string) bool {
	if s == manifestName || s == directivesName {
		return true
	}
	if _, ok := version(s); ok {
		return true
	}
	_, ok := tree(s)
	return ok
}

// version is that of keysets/N.json, in the one form of each number.
func version(s string) (uint64, bool) {
	s, set := strings.CutPrefix(s, keySetDir)
	s, end := strings.CutSuffix(s, jsonEnd)
	n, err := strconv.ParseUint(s, 10, 64)
	return n, set && end && err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

func tree(s string) (release.Hash, bool) {
	s, ok := strings.CutPrefix(s, objectDir)
	h, err := release.ParseHash(s)
	return h, ok && err == nil
}

// limits are those of a whole bundle.
func limits() ustar.Limits { return ustar.Limits{Files: maxFiles, Total: maxSize, Name: name} }

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBundle, fmt.Sprintf(format, args...))
}

// Open reads the signed manifest and the names of the key sets behind it. Nothing is
// verified yet: see [Bundle.Follow] and release.Open.
func Open(r io.ReaderAt, size int64) (*Bundle, error) {
	b := &Bundle{r: r, size: size}
	var err error
	b.envelope, _, err = head(ustar.NewReader(io.NewSectionReader(r, 0, size), limits()), func(n uint64, e ustar.Entry) error {
		b.keySets, b.versions = append(b.keySets, e), append(b.versions, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// head reads the manifest, gives each key set, and goes to the first entry behind them, nil
// at the end.
func head(t *ustar.Reader, keySet func(n uint64, e ustar.Entry) error) (envelope []byte, next *ustar.Entry, err error) {
	e, err := t.Next()
	if err != nil {
		return nil, nil, form(err)
	}
	if e.Name != manifestName || e.Size > trust.MaxEnvelope {
		return nil, nil, bad("it begins with %s of %d bytes, wants %s of at most %d", e.Name, e.Size, manifestName, trust.MaxEnvelope)
	}
	if envelope, err = io.ReadAll(t); err != nil {
		return nil, nil, form(err)
	}
	last := uint64(0)
	for i := 1; ; i++ {
		e, err := t.Next()
		if err == io.EOF {
			return envelope, nil, nil
		}
		if err != nil {
			return nil, nil, form(err)
		}
		n, ok := version(e.Name)
		if !ok {
			return envelope, &e, nil
		}
		if i > MaxKeySets || n <= last || e.Size > trust.MaxEnvelope {
			return nil, nil, bad("key set %d of %d bytes as number %d: wants at most %d, rising", n, e.Size, i, MaxKeySets)
		}
		last = n
		if err := keySet(n, e); err != nil {
			return nil, nil, err
		}
	}
}

// form makes what the tar says what this package says.
func form(err error) error {
	if errors.Is(err, ustar.ErrForm) {
		return fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if err == io.EOF {
		return bad("it is empty")
	}
	return fmt.Errorf("read bundle: %w", err)
}

// Envelope is the signed manifest, as release.Open takes it.
func (b *Bundle) Envelope() []byte { return b.envelope }

// Versions are those of the key sets in it, rising.
func (b *Bundle) Versions() []uint64 { return b.versions }

// KeySet reads the envelope of a key set, by its place among Versions.
func (b *Bundle) KeySet(i int) ([]byte, error) {
	out := make([]byte, b.keySets[i].Size)
	if _, err := b.r.ReadAt(out, b.keySets[i].Offset); err != nil {
		return nil, fmt.Errorf("read bundle: key set %d: %w", b.versions[i], err)
	}
	return out, nil
}

// Follow gives the newest key set that the one in force leads to. Each step is one of
// trust.KeySet.Next; took, if not nil, gets the envelope of each that was taken, and its error
// ends it. Sets that are not newer are passed over. A step that the root keys do not
// allow is an error, with the set that was reached before it.
func (b *Bundle) Follow(set *trust.KeySet, took func(envelope []byte) error) (*trust.KeySet, error) {
	return follow(set, b.versions, b.KeySet, took)
}

func follow(set *trust.KeySet, versions []uint64, envelope func(i int) ([]byte, error), took func([]byte) error) (*trust.KeySet, error) {
	for i, n := range versions {
		if n <= set.Version {
			continue
		}
		text, err := envelope(i)
		if err != nil {
			return set, err
		}
		e, err := trust.ParseEnvelope(text)
		if err != nil {
			return set, fmt.Errorf("key set %d of the bundle: %w", n, err)
		}
		next, err := set.Next(e)
		if err != nil {
			return set, fmt.Errorf("key set %d of the bundle: %w", n, err)
		}
		if next.Version != n {
			return set, bad("key set %d is called %d", next.Version, n)
		}
		if took != nil {
			if err := took(text); err != nil {
				return set, err
			}
		}
		set = next
	}
	return set, nil
}

// Index finds the objects, with the manifest that Envelope was opened to: each is one that it
// names, of the size that it says, in the order of [Objects], and each file is there in a way
// that wants no base. It reads 512 bytes for each. That the bytes are the right ones is for
// whoever reads them to find out.
func (b *Bundle) Index(m *release.Opened) error {
	if err := of(b.envelope, m); err != nil {
		return err
	}
	t := ustar.NewReader(io.NewSectionReader(b.r, 0, b.size), limits())
	_, e, err := head(t, func(uint64, ustar.Entry) error { return nil })
	if err != nil {
		return err
	}
	o, directives := newOrder(m), (*ustar.Entry)(nil)
	if e != nil && e.Name == directivesName {
		if e.Size > MaxDirectives {
			return bad("%s of %d bytes, at most %d", e.Name, e.Size, MaxDirectives)
		}
		directives = e
		if e, err = next(t); err != nil {
			return err
		}
	}
	for ; e != nil; e, err = next(t) {
		if err != nil {
			return err
		}
		if _, err := o.take(*e); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := o.end(); err != nil {
		return err
	}
	b.objects, b.directives = o.have, directives
	return nil
}

// Object gives an object of an indexed bundle in place; nil where it has not got it.
func (b *Bundle) Object(o release.Object) *io.SectionReader {
	e, ok := b.objects[o.Tree]
	if !ok || e.Size != o.Size {
		return nil
	}
	return io.NewSectionReader(b.r, e.Offset, e.Size)
}

// Directed is the director's word for one board, as a line of JSON. What stands beside
// the proof only serves to find it.
type Directed struct {
	Tenant    string `json:"tenant"`
	Board     string `json:"board"`
	Component string `json:"component"`
	Statement []byte `json:"statement"`
	Envelope  []byte `json:"envelope"` // of the batch
	Index     uint32 `json:"index"`
	Count     uint32 `json:"count"`
	Path      []byte `json:"path,omitempty"`
}

// Proven is it in the form of the wire.
func (d *Directed) Proven() *wire.Proven {
	return &wire.Proven{Statement: d.Statement, Proof: wire.Proof{Envelope: d.Envelope, Index: d.Index, Count: d.Count, Path: d.Path}}
}

// Line is it as a line.
func (d *Directed) Line() ([]byte, error) {
	b, err := json.Marshal(d)
	if err == nil && len(b) >= maxLine {
		err = bad("a directive of %d bytes, at most %d", len(b), maxLine-1)
	}
	return append(b, '\n'), err
}

// Lines reads directives one by one until each says no more, or they end.
func Lines(r io.Reader, each func(*Directed) (more bool)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4<<10), maxLine)
	for n := 1; s.Scan(); n++ {
		d := new(Directed)
		if err := strictjson.Decode(s.Bytes(), maxLine, d); err != nil {
			return bad("directive %d: %v", n, err)
		}
		if !each(d) {
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return bad("directives: %v", err)
	}
	return nil
}

// Directive finds the director's word on a component of a board in an indexed bundle; nil
// where there is none. It is not verified: see package prove.
func (b *Bundle) Directive(tenant, board, component string) (*wire.Proven, error) {
	if b.directives == nil {
		return nil, nil
	}
	var found *wire.Proven
	err := Lines(io.NewSectionReader(b.r, b.directives.Offset, b.directives.Size), func(d *Directed) bool {
		if d.Tenant == tenant && d.Board == board && d.Component == component {
			found = d.Proven()
		}
		return found == nil
	})
	return found, err
}
