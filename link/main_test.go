// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines left over. A publisher may hang in the client for
// its write timeout after a loss, so they get that long to end.
func TestMain(m *testing.M) {
	code := m.Run()
	var err error
	for begin := time.Now(); code == 0 && time.Since(begin) < writeTimeout+time.Second; {
		if err = goleak.Find(); err == nil {
			break
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
