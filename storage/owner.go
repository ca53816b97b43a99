// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"fulmar/schema"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/owner"
	"fulmar/storage/vault"
)

// errUnclaimed: the spool is somebody's, and this board has no name yet. A record put
// into it could never be told from the owner's.
var errUnclaimed = errors.New("the board has no name yet")

// ownership is whose spool this is to be.
type ownership struct {
	mu    sync.Mutex // held while the disk is opened and while it is claimed
	board string     // "": not known yet
}

// Claim says which board the spool belongs to, for who did not know at Open, and must
// come before anything is sent. It fails with [ErrOwner] where the spool works on the
// disk of another board: then nothing that Read gives may be sent under this name. A
// disk that Open left alone for want of a name is opened by Run now, or left alone for
// good, see [Stats].Memory; what is read meanwhile is of this board. Other errors say
// that the name could not be written down; the next start does it.
func (s *Spool) Claim(board string) error {
	if err := schema.CheckBoard(board); err != nil {
		return fmt.Errorf("claim the spool: %w", err)
	}
	if s.closed.Load() {
		return ErrClosed
	}
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	if s.classes.Load() == nil {
		s.owner.board = board
		s.memory.claimed()
		return nil
	}
	if s.owner.board != "" && s.owner.board != board {
		return s.another(s.owner.board, board)
	}
	s.owner.board = board
	return s.own()
}

// another is the error for a spool of board has where the board is named wants.
func (s *Spool) another(has, wants string) error {
	return fmt.Errorf("%w: %s holds the records of %q and this board is %q; give the board its old name, or move the folder away and read it with fulmar spool export",
		ErrOwner, s.cfg.Dir, has, wants)
}

// mayOpen makes sure, before anything is counted or touched, that this program knows
// the spool's version and that the spool is this board's.
func (s *Spool) mayOpen() error {
	for _, c := range schema.Classes() {
		if _, _, err := meta.Load(filepath.Join(s.cfg.Dir, c.String()), c); errors.Is(err, ErrNewer) {
			return err
		}
	}
	if s.cfg.Holder != nil {
		if err := vault.CheckVersion(s.cfg.Dir); err != nil {
			return err
		}
	}
	has, err := owner.Read(s.cfg.Dir)
	switch {
	case err != nil && !errors.Is(err, owner.ErrDamaged):
		return err
	case has == "" || has == s.owner.board:
		return nil
	case s.owner.board == "":
		return fmt.Errorf("%w: %s holds the records of %q; name the board in its config, or enrol it", errUnclaimed, s.cfg.Dir, has)
	}
	return s.another(has, s.owner.board)
}

// own writes down whose spool it is, where that is known and does not stand there yet.
// A spool of old has no owner, and one whose file is damaged is taken for this board's:
// its records were worth more than the doubt.
func (s *Spool) own() error {
	if s.owner.board == "" {
		return nil
	}
	has, err := owner.Read(s.cfg.Dir)
	if has == s.owner.board {
		return nil
	}
	if errors.Is(err, owner.ErrDamaged) {
		s.shared.Log.Warn("nobody can tell any more whose spool this was, it is taken for this board's", "board", s.owner.board, "err", err)
	} else if err != nil {
		return err
	}
	if err := owner.Write(s.cfg.Dir, s.owner.board, s.cfg.NoSync); err != nil {
		return err
	}
	s.shared.Log.Info("spool belongs to this board from now on", "board", s.owner.board)
	return nil
}
