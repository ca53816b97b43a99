// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestPasswordNotInAJournal: a pipe that systemd reads gets no secret, another one does.
func TestPasswordNotInAJournal(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	if !isJournal(w, stream) || isJournal(os.Stdin, stream) || isJournal(w, "") || isJournal(w, "8:1234") {
		t.Errorf("%s is not told from other streams", stream)
	}
	for _, journal := range []bool{true, false} {
		var out bytes.Buffer
		tellPassword(&out, journal, "s3cret")
		if strings.Contains(out.String(), "s3cret") == journal || journal && !strings.Contains(out.String(), "reset-password") {
			t.Errorf("journal %v: %q", journal, out.String())
		}
	}
}
