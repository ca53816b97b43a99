// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"fulmar/internal/merkle"
)

// Bounds of a batch.
const (
	// MaxBatch is how many statements one signature covers: a wave of every board that a
	// fleet is made for, with room.
	MaxBatch = 1 << 16
	// MaxPath is the longest path to a statement of a batch, in bytes.
	MaxPath = 16 * merkle.Size
	// maxHead bounds the payload that is signed for a batch: three short fields.
	maxHead = 256
)

// Proof shows that a statement is one of a batch that was signed as a whole: a TPM signs a
// few times a second, and a wave has thousands of boards. The statement travels beside it.
type Proof struct {
	Envelope []byte // signed: the root over all statements (JSON, DSSE)
	Index    int    // of the statement
	Count    int    // of statements
	Path     []byte // hashes from the statement up to the root, see internal/merkle
}

// batchHead is what is signed for a batch.
type batchHead struct {
	V     int    `json:"v"`
	Root  string `json:"root"` // hex, of RFC 6962's tree over the statements
	Count int    `json:"count"`
}

// SignBatch signs statements of a type with one signature of a key and gives each its
// proof. There are 1 to MaxBatch of them, each of at most MaxPayload bytes.
func SignBatch(t Type, statements [][]byte, key crypto.Signer) ([]Proof, error) {
	if len(statements) == 0 || len(statements) > MaxBatch {
		return nil, fmt.Errorf("sign a batch of %d statements, wants 1 to %d", len(statements), MaxBatch)
	}
	leaves := make([]merkle.Hash, len(statements))
	for i, s := range statements {
		if len(s) == 0 || len(s) > MaxPayload {
			return nil, fmt.Errorf("%w: statement %d of a batch has %d bytes, wants 1 to %d", ErrMalformed, i, len(s), MaxPayload)
		}
		leaves[i] = merkle.Leaf(s)
	}
	tree := merkle.New(leaves)
	root := tree.Root()
	head, err := json.Marshal(batchHead{V: 1, Root: hex.EncodeToString(root[:]), Count: len(leaves)})
	if err != nil {
		return nil, err
	}
	e, err := NewEnvelope(t, head)
	if err != nil {
		return nil, err
	}
	if err := e.Sign(key); err != nil {
		return nil, err
	}
	envelope, err := e.Encode()
	if err != nil {
		return nil, err
	}
	out := make([]Proof, len(leaves))
	for i := range out {
		out[i] = Proof{Envelope: envelope, Index: i, Count: len(leaves), Path: tree.Path(nil, i)}
	}
	return out, nil
}

// VerifyBatch tells whether a statement is one of a batch of the wanted type that enough
// keys of the type's role signed, good at the epoch: nil, [ErrSignatures] or
// [ErrMalformed]. The statement may be parsed after that.
func (s *KeySet) VerifyBatch(p Proof, statement []byte, want Type, epoch uint64) error {
	e, err := ParseEnvelope(p.Envelope)
	if err != nil {
		return err
	}
	payload, err := s.Verify(e, want, epoch)
	if err != nil {
		return err
	}
	var head batchHead
	if err := strict(payload, maxHead, &head); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	root, err := hex.DecodeString(head.Root)
	switch {
	case err != nil || head.V != 1 || len(root) != merkle.Size || head.Count < 1 || head.Count > MaxBatch:
		return fmt.Errorf("%w: batch of version %d with %d statements", ErrMalformed, head.V, head.Count)
	case head.Count != p.Count || len(statement) == 0 || len(statement) > MaxPayload:
		return fmt.Errorf("%w: a statement of %d bytes in a batch of %d, the signed one has %d", ErrMalformed, len(statement), p.Count, head.Count)
	case !merkle.Verify(merkle.Hash(root), merkle.Leaf(statement), p.Index, p.Count, p.Path):
		return fmt.Errorf("%w: the statement is not number %d of the %d that were signed", ErrSignatures, p.Index, p.Count)
	}
	return nil
}
