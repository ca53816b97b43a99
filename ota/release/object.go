// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"fulmar/internal/merkle"
)

const (
	// Piece is the size of the pieces that an object is brought and checked in, in bytes;
	// the last one may be shorter. It is schema.MaxChunk.
	Piece = 64 << 10
	// MaxSize bounds an object, in bytes: a root file system of 16 GiB.
	MaxSize = 16 << 30
)

// Hash is a SHA-256; as text 64 hex digits.
type Hash [sha256.Size]byte

// String gives the hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: lower-case digits alone, so that one
// hash has one text.
func (h *Hash) UnmarshalText(b []byte) error {
	v, err := ParseHash(string(b))
	*h = v
	return err
}

// ParseHash reads what String gave.
func ParseHash(s string) (h Hash, err error) {
	n, err := hex.Decode(h[:], []byte(s[:min(len(s), 2*len(h))]))
	if err != nil || n != len(h) || h.String() != s {
		return Hash{}, fmt.Errorf("%.80q is no SHA-256 in hex", s)
	}
	return h, nil
}

// Object is bytes by their hash. Tree is the root over its pieces (internal/merkle; a leaf is
// the hash of a piece), by which each piece is checked when it comes.
type Object struct {
	SHA256 Hash  `json:"sha256"`
	Size   int64 `json:"size"` // bytes, at least 1
	Tree   Hash  `json:"tree"`
}

func (o *Object) check() error {
	if o.Size < 1 || o.Size > MaxSize || o.SHA256 == (Hash{}) || o.Tree == (Hash{}) {
		return fmt.Errorf("an object of %d bytes, wants 1 to %d and both hashes", o.Size, int64(MaxSize))
	}
	return nil
}

// Pieces is how many pieces it has.
func (o *Object) Pieces() int { return int((o.Size + Piece - 1) / Piece) }

// PieceSize is the size of piece i, in bytes.
func (o *Object) PieceSize(i int) int {
	return int(min(Piece, o.Size-int64(i)*Piece))
}

// Proves tells whether data is piece i of the object, by the path that came with it.
func (o *Object) Proves(i int, data, path []byte) bool {
	return i >= 0 && i < o.Pieces() && len(data) == o.PieceSize(i) &&
		merkle.Verify(merkle.Hash(o.Tree), merkle.Leaf(data), i, o.Pieces(), path)
}

// Describe reads all of r and gives its object and the tree over its pieces, which takes
// 64 bytes a piece.
func Describe(r io.Reader) (Object, *merkle.Tree, error) {
	whole := sha256.New()
	buf := make([]byte, Piece)
	var leaves []merkle.Hash
	var o Object
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			whole.Write(buf[:n])
			leaves = append(leaves, merkle.Leaf(buf[:n]))
			o.Size += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return Object{}, nil, err
		}
		if o.Size > MaxSize {
			return Object{}, nil, fmt.Errorf("more than %d bytes", int64(MaxSize))
		}
	}
	if o.Size == 0 {
		return Object{}, nil, fmt.Errorf("an empty file cannot be an object")
	}
	tree := merkle.New(leaves)
	o.SHA256, o.Tree = Hash(whole.Sum(nil)), Hash(tree.Root())
	return o, tree, nil
}
