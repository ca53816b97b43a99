// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"
)

// Whatever a TPM answers: it is one whole answer, or an error of a known class.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0})
	f.Add([]byte{0x80, 2, 0, 0, 0, 12, 0, 0, 1, 1, 7, 7})
	f.Add([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22})
	f.Add([]byte{0x80, 1, 0xff, 0, 0, 10, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		defer func() { _ = near.Close() }()
		go func() {
			defer func() { _ = far.Close() }()
			if _, err := far.Read(make([]byte, 16)); err == nil {
				_, _ = far.Write(b)
			}
		}()
		c := &Bus{path: "unix:/nowhere", timeout: 5 * time.Second, link: stream{near}}
		rsp, err := c.once([]byte("a command"), time.Now().Add(c.timeout))
		switch {
		case err != nil && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrGone):
			t.Error(err)
		case err != nil && c.link != nil:
			t.Error("the connection is kept after", err)
		case err == nil && (!bytes.HasPrefix(b, rsp) || len(rsp) < headerBytes):
			t.Errorf("%x from %x", rsp, b)
		}
		if err == nil {
			again(rsp)
		}
	})
}
