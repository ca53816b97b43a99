// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// output is where the new file goes: it is counted and hashed on its way, and never
// longer than wanted.
type output struct {
	ctx  context.Context
	buf  *bufio.Writer
	hash hash.Hash
	want Target
	left int64
}

func newOutput(ctx context.Context, w io.Writer, want Target) *output {
	return &output{ctx: ctx, buf: bufio.NewWriterSize(w, 64<<10), hash: sha256.New(), want: want, left: want.Size}
}

func (o *output) Write(b []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(b)) > o.left {
		return 0, fmt.Errorf("%w: it is longer than %d bytes", ErrMismatch, o.want.Size)
	}
	o.left -= int64(len(b))
	o.hash.Write(b)
	n, err := o.buf.Write(b)
	if err != nil {
		return n, fmt.Errorf("write: %w", err)
	}
	return n, nil
}

// finish decides.
func (o *output) finish() error {
	if o.left != 0 {
		return fmt.Errorf("%w: it ended %d bytes early", ErrMismatch, o.left)
	}
	if [sha256.Size]byte(o.hash.Sum(nil)) != o.want.SHA256 {
		return fmt.Errorf("%w: its SHA-256 is another", ErrMismatch)
	}
	if err := o.buf.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
