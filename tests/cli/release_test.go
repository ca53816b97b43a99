// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// programs makes old/fulmard and new/fulmard, which have most in common.
func programs(ts *testscript.TestScript, _ bool, _ []string) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 300_000)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for _, name := range []string{"old", "new"} {
		ts.Check(os.MkdirAll(ts.MkAbs(name), 0o755))
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(name), "fulmard"), b, 0o755))
		copy(b[100_000:], "another version")
	}
}

// spoil DIR changes one byte of the largest object of a release.
func spoil(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(ts.MkAbs(args[0]), "objects")
	list, err := os.ReadDir(dir)
	ts.Check(err)
	largest, most := "", int64(0)
	for _, e := range list {
		st, err := e.Info()
		ts.Check(err)
		if st.Size() > most {
			largest, most = filepath.Join(dir, e.Name()), st.Size()
		}
	}
	b, err := os.ReadFile(largest)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(largest, b, 0o644))
}

// many N DIR makes a folder of so many files.
func many(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.MkdirAll(ts.MkAbs(args[1]), 0o755))
	for i := range n {
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[1]), fmt.Sprintf("%03d.json", i)), []byte(strconv.Itoa(i)), 0o644))
	}
}
