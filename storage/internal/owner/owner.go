// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package owner is the small file that says whose spool a folder is: one line, the
// board's name, a space, and its CRC-32C in eight hex digits. The tenant is not in
// it: a board that moves to another one takes its spool along.
package owner

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

// Name is the name of the file in the spool's folder.
const Name = "owner"

// ErrDamaged says that the file is there and says nothing that can be believed.
var ErrDamaged = errors.New("the file that names the spool's board is damaged")

// Read tells whose spool the folder is; "": there is no such file.
func Read(dir string) (board string, err error) {
	path := filepath.Join(dir, Name)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("owner of the spool: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, schema.MaxName+16)) // name, space, sum, newline, and one that is too many
	if err != nil {
		return "", fmt.Errorf("owner of the spool: %w", err)
	}
	board, ok := decode(b)
	if !ok {
		return "", fmt.Errorf("%w: %s", ErrDamaged, path)
	}
	return board, nil
}

// Write says that the folder is the board's. noSync: it need not survive a power loss.
func Write(dir, board string, noSync bool) error {
	if err := schema.CheckBoard(board); err != nil {
		return fmt.Errorf("owner of the spool: %w", err)
	}
	write := atomicfile.WriteFile
	if noSync {
		write = os.WriteFile
	}
	if err := write(filepath.Join(dir, Name), encode(board), 0o600); err != nil {
		return fmt.Errorf("owner of the spool: %w", err)
	}
	return nil
}

func encode(board string) []byte {
	return fmt.Appendf(nil, "%s %08x\n", board, crc32.Checksum([]byte(board), crc32.MakeTable(crc32.Castagnoli)))
}

// decode gives the name in a file; what Write would not have written is damaged.
func decode(b []byte) (board string, ok bool) {
	name, _, ok := bytes.Cut(b, []byte(" "))
	board = string(name)
	return board, ok && schema.CheckBoard(board) == nil && bytes.Equal(encode(board), b)
}
