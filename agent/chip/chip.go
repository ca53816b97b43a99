// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chip

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/storage/vault"
	"fulmar/tpm"
)

// How long a caller waits.
const (
	// Quick is for what a handshake or an open spool waits for: loading a key and using
	// it once takes a slow chip one second, and others may be before it.
	Quick = 10 * time.Second
	// Slow is for making keys, an RSA endorsement key among them, which takes most of a
	// minute on a discrete TPM.
	Slow = 3 * time.Minute
)

// Patience is how long after the boot a TPM may still appear: a firmware TPM does when
// user space has started its supplicant. Before that, none is no answer.
const Patience = 2 * time.Minute

// nodeWait is how long the spool's key waits for a TPM that may still appear; after it
// the spool works from memory and tries again each minute.
const nodeWait, nodeLook = 10 * time.Second, 100 * time.Millisecond

// The files under the board's identity that say which TPM it has.
const (
	// PinFile is the Name of the storage root key, in hex.
	PinFile = "srk.name"
	// KeyFile is the board's private key, as only its TPM can use it.
	KeyFile = "board.tpm.pem"
	maxFile = 4096
)

// ErrBetween says that another storage root key answers than the pinned one, although
// the board's key is of this TPM.
var ErrBetween = errors.New("the TPM shows another storage root key than the one pinned in " + PinFile +
	", yet holds the board's key: somebody is between, or that file was changed; look at the board")

var errEnded = fmt.Errorf("%w: the program ends", tpm.ErrGone)

// Chip is the TPM of a board. Safe for use by many goroutines.
type Chip struct {
	path   string
	dir    string               // of the board's identity
	uptime func() time.Duration // of the machine
	log    *slog.Logger
	turn   chan struct{} // held by who uses the TPM
	ended  chan struct{} // closed by Stop

	mu    sync.Mutex
	tpm   *tpm.TPM
	info  *tpm.Info
	other bool // another storage root key than the pinned one, and that is no fault
}

// New touches nothing. dir is where the board's identity lies, path as in tpm.Config,
// uptime the time since the boot.
func New(path, dir string, uptime func() time.Duration, log *slog.Logger) *Chip {
	return &Chip{path: path, dir: dir, uptime: uptime, log: log, turn: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Awaited tells whether a TPM that is not there may still appear, as long after the
// boot as it is.
func (c *Chip) Awaited() bool { return !c.Present() && c.uptime() < Patience }

// Use runs f with the open TPM, alone. After limit, or when ctx ends, it gives an error
// (tpm.ErrTimeout, or ctx's) while f may go on by itself: a command cannot be called
// back. What f returns then is dropped. f must not keep the TPM or its keys.
func Use[T any](ctx context.Context, c *Chip, limit time.Duration, f func(*tpm.TPM) (T, error)) (T, error) {
	var none T
	timer := time.NewTimer(limit)
	defer timer.Stop()
	late := fmt.Errorf("%w (%v)", tpm.ErrTimeout, limit)
	select {
	case c.turn <- struct{}{}:
	case <-timer.C:
		return none, late
	case <-ctx.Done():
		return none, ctx.Err()
	case <-c.ended:
		return none, errEnded
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() { // outlives the call only while a command hangs; turn lets no second one begin
		defer func() { <-c.turn }()
		var r result
		t, err := c.open()
		if err == nil {
			r.v, err = f(t)
		}
		if errors.Is(err, tpm.ErrForeign) {
			c.Close() // the storage root key may have changed under us: look again next time
		}
		r.err = err
		done <- r
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		return none, late
	case <-ctx.Done():
		return none, ctx.Err()
	case <-c.ended:
		return none, errEnded
	}
}

// Stop makes every use end at once, for good: a TPM that hangs must not hold up the
// end of the program. It is called once.
func (c *Chip) Stop() { close(c.ended) }

// Present tells whether there is something where the TPM should be.
func (c *Chip) Present() bool {
	path := c.path
	switch {
	case path == "":
		path = "/dev/tpmrm0"
	case strings.HasPrefix(path, "tcp:"):
		return true
	}
	_, err := os.Stat(strings.TrimPrefix(path, "unix:"))
	return !errors.Is(err, fs.ErrNotExist)
}

// Close lets go of the TPM; the next use opens it again.
func (c *Chip) Close() {
	c.mu.Lock()
	t := c.tpm
	c.tpm, c.info = nil, nil
	c.mu.Unlock()
	if t != nil {
		_ = t.Close() // it may be the broken connection itself
	}
}

// open gives the open TPM. With another storage root key than the pinned one it looks
// whether the board's key is of this TPM: if not, the TPM is another or was cleared,
// and it is opened as what it is, so that the board can get new keys; if it is,
// somebody may show us a key of his own, and nothing is done: ErrBetween.
func (c *Chip) open() (*tpm.TPM, error) {
	c.mu.Lock()
	t := c.tpm
	c.mu.Unlock()
	if t != nil {
		return t, nil
	}
	pin, err := c.pinned()
	if err != nil {
		return nil, err
	}
	t, err = tpm.Open(tpm.Config{Path: c.path, SRKName: pin})
	other := false
	if pin != nil && errors.Is(err, tpm.ErrForeign) {
		if t, err = tpm.Open(tpm.Config{Path: c.path}); err != nil {
			return nil, err
		}
		if holds(t, filepath.Join(c.dir, KeyFile)) {
			return nil, errors.Join(ErrBetween, t.Close())
		}
		other = true
	}
	if err != nil {
		return nil, err
	}
	if other {
		c.log.Error("the TPM is another one than before, or was cleared", "storage_root_key", hex.EncodeToString(t.SRKName()), "pinned", hex.EncodeToString(pin))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tpm, c.other = t, other
	return t, nil
}

// holds tells whether a stored key is of this TPM.
func holds(t *tpm.TPM, path string) bool {
	b, err := os.ReadFile(path)
	if err != nil || len(b) > maxFile {
		return false
	}
	k, err := t.ParseKey(b)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(b)
	_, err = k.Sign(nil, sum[:], crypto.SHA256)
	return err == nil
}

// pinned reads the pinned Name; nil if there is none.
func (c *Chip) pinned() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, PinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the pinned storage root key: %w", err)
	}
	name, err := hex.DecodeString(strings.TrimSpace(string(b[:min(len(b), maxFile)])))
	if err != nil || len(name) == 0 {
		c.log.Error("the pinned name of the storage root key cannot be read, taking the one that is there", "path", filepath.Join(c.dir, PinFile))
		return nil, nil
	}
	return name, nil
}

// Pin writes down the storage root key of t: from now on only with it are secrets shared.
func (c *Chip) Pin(t *tpm.TPM) error {
	c.mu.Lock()
	c.other = false
	c.mu.Unlock()
	return atomicfile.WriteFile(filepath.Join(c.dir, PinFile), []byte(hex.EncodeToString(t.SRKName())+"\n"), 0o600)
}

// Other tells whether the open TPM is not the one the board's keys were made in.
func (c *Chip) Other() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.other
}

// Info is what the TPM says of itself, asked once for each opening.
func (c *Chip) Info(ctx context.Context) (tpm.Info, error) {
	if i, ok := c.Known(); ok {
		return i, nil
	}
	return Use(ctx, c, Slow, c.InfoOf)
}

// InfoOf is Info for who has the TPM already.
func (c *Chip) InfoOf(t *tpm.TPM) (tpm.Info, error) {
	if i, ok := c.Known(); ok {
		return i, nil
	}
	i, err := t.Info()
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.info = &i
	}
	return i, err
}

// Known is Info where it has been asked already.
func (c *Chip) Known() (tpm.Info, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.info == nil {
		return tpm.Info{}, false
	}
	return *c.info, true
}

// Holder seals the keys of the spool to this TPM. It waits no longer than Quick; what
// fails for now makes the spool work from memory and try again.
func (c *Chip) Holder() vault.Holder { return holder{c} }

type holder struct{ c *Chip }

// Kind implements [vault.Holder].
func (holder) Kind() string { return (&tpm.Holder{}).Kind() }

// Seal implements [vault.Holder]. The secret is bound to this TPM and to no PCR: where
// the boot is not measured that would prove no more, and where it is an update would
// lock the board out of its own records.
func (h holder) Seal(key []byte) ([]byte, error) {
	h.await()
	return Use(context.Background(), h.c, Quick, func(t *tpm.TPM) ([]byte, error) {
		return (&tpm.Holder{TPM: t}).Seal(key)
	})
}

// Unseal implements [vault.Holder].
func (h holder) Unseal(blob []byte) ([]byte, error) {
	h.await()
	return Use(context.Background(), h.c, Quick, func(t *tpm.TPM) ([]byte, error) {
		return (&tpm.Holder{TPM: t, Lost: vault.ErrKeyLost}).Unseal(blob)
	})
}

// await gives a TPM that may still appear a moment.
func (h holder) await() {
	for end := time.Now().Add(nodeWait); h.c.Awaited() && time.Now().Before(end); {
		select {
		case <-time.After(nodeLook):
		case <-h.c.ended:
			return
		}
	}
}
