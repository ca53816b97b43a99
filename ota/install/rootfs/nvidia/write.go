// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package nvidia

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"fulmar/ota/install/rootfs"
)

const (
	writePiece = 1 << 20  // bytes of one write
	noteEvery  = 32 << 20 // bytes between two syncs, after which a cut goes on there
	maxCapsule = 256 << 20
)

// write brings an image or a capsule to where it belongs.
func (c *call) write(ctx context.Context, q rootfs.Request, in io.Reader, out io.Writer) error {
	to := 1 - c.s.current
	sum, err := hex.DecodeString(q.SHA256)
	switch t := c.st.Trial; {
	case err != nil || len(sum) != sha256.Size || q.Size < 1 || q.Capsule < 0 || q.Capsule > maxCapsule || len(q.Version) > 64:
		return fmt.Errorf("a file of %d bytes, SHA-256 %.80q, capsule of %d bytes", q.Size, q.SHA256, q.Capsule)
	case t != nil && t.Token == q.Token, c.st.Slots[c.s.current].Token == q.Token && c.st.Fell != q.Token:
		return nil // it runs, or is about to: nothing is written
	case t != nil:
		return fmt.Errorf("%s is on trial: the other system is what it goes back to", t.Token)
	}
	if err := c.hinder(to); err != nil {
		return err
	}
	if q.Kind == rootfs.KindCapsule {
		return c.writeCapsule(q, to, in, out)
	}
	if q.Kind != rootfs.KindImage {
		return fmt.Errorf("kind %.40q is neither %s nor %s", q.Kind, rootfs.KindImage, rootfs.KindCapsule)
	}
	return c.writeImage(ctx, q, to, in, out)
}

func (c *call) writeImage(ctx context.Context, q rootfs.Request, to int, in io.Reader, out io.Writer) error {
	path, _, size, err := c.device(to)
	if err != nil {
		return err
	}
	if q.Size > size {
		return fmt.Errorf("an image of %d bytes for a partition of %d: %w", q.Size, size, syscall.ENOSPC)
	}
	x := &c.st.Slots[to]
	again := c.st.Fell == q.Token
	if x.Token != q.Token || x.SHA256 != q.SHA256 || x.Size != q.Size {
		// From here on the old system there is gone.
		*x = content{Token: q.Token, Version: q.Version, Size: q.Size, SHA256: q.SHA256, Capsule: q.Capsule}
		again = true
	} else if x.Whole && holds(path, x) != nil {
		x.Whole, x.Written, again = false, 0, true
	}
	if again {
		if c.st.Fell == q.Token { // it is a new try
			c.st.Fell, c.st.Why = "", ""
		}
		if c.st.Done != nil && c.st.Done.From == to {
			c.st.Done = nil
		}
		if err := c.save(c.st); err != nil {
			return err
		}
	}
	if x.Whole {
		return nil
	}
	// O_EXCL: the kernel refuses a partition that is mounted.
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("open the partition of slot %s: %w", slotName(to), err)
	}
	defer f.Close()
	if err := rootfs.Write(out, rootfs.Answer{More: true, Offset: x.Written}); err != nil {
		return err
	}
	if err := c.copyTo(ctx, f, x, in); err != nil {
		return err
	}
	forget(f)
	if err := holds(path, x); err != nil {
		x.Written = 0
		return errors.Join(err, c.save(c.st))
	}
	x.Whole = true
	return c.save(c.st)
}

// copyTo writes the rest of an image and notes how far it came.
func (c *call) copyTo(ctx context.Context, f *os.File, x *content, in io.Reader) error {
	b, noted := make([]byte, writePiece), x.Written
	at := x.Written
	note := func() error {
		if err := f.Sync(); err != nil {
			return err
		}
		x.Written, noted = at, at
		return c.save(c.st)
	}
	for at < x.Size {
		n, err := io.ReadFull(in, b[:min(int64(len(b)), x.Size-at)])
		if err != nil || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the image ended after %d of %d bytes: %w", at, x.Size, err), ctx.Err(), note())
		}
		if _, err := f.WriteAt(b[:n], at); err != nil {
			return err
		}
		if at += int64(n); at-noted >= noteEvery {
			if err := note(); err != nil {
				return err
			}
		}
	}
	return note()
}

// holds reads an image back from its partition.
func holds(path string, x *content) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, x.Size); err != nil {
		return fmt.Errorf("read %s back: %w", path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != x.SHA256 {
		return fmt.Errorf("%s holds other bytes than were written: SHA-256 %s in place of %s", path, got, x.SHA256)
	}
	return nil
}

// writeCapsule keeps a capsule beside the state until the switch.
func (c *call) writeCapsule(q rootfs.Request, to int, in io.Reader, out io.Writer) error {
	x := &c.st.Slots[to]
	if x.Token != q.Token || x.Capsule != q.Size {
		return fmt.Errorf("the capsule belongs to %s, and slot %s holds %s", q.Token, slotName(to), orNone(x.Token))
	}
	if room, err := c.espFree(); err != nil || room < q.Size {
		return errors.Join(fmt.Errorf("the ESP has room for %d bytes, the capsule has %d: %w", room, q.Size, syscall.ENOSPC), err)
	}
	if err := rootfs.Write(out, rootfs.Answer{More: true}); err != nil {
		return err
	}
	if err := c.take(filepath.Join(c.State, capsule), io.LimitReader(in, q.Size), q.Size, q.SHA256); err != nil {
		return err
	}
	x.Brought = true
	return c.save(c.st)
}

// take writes a file whole, durably, if it is what it should be.
func (c *call) take(path string, in io.Reader, size int64, sum string) error {
	tmp := filepath.Join(filepath.Dir(path), "new.tmp")
	if err := c.Disk.RemoveAll(tmp); err != nil {
		return err
	}
	f, err := c.Disk.Create(tmp, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), in)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil && (n != size || sum != "" && hex.EncodeToString(h.Sum(nil)) != sum) {
		err = fmt.Errorf("%d bytes of another content came, wants %d with SHA-256 %s", n, size, sum)
	}
	if err == nil {
		err = c.Disk.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep %s: %w", filepath.Base(path), err), c.Disk.RemoveAll(tmp))
	}
	return c.Disk.SyncDir(filepath.Dir(path))
}

// deliver puts the capsule where the firmware looks for it, and tells it to. It switches the
// boot chain, and with it the root file system, by itself.
func (c *call) deliver() error {
	dir := c.path(filepath.Join(esp, capsuleDir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	in, err := os.Open(filepath.Join(c.State, capsule))
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if err := c.take(filepath.Join(dir, capsule), in, fi.Size(), ""); err != nil {
		return err
	}
	v, _ := c.variable(varIndications) // not there is 0
	return c.setVariable(varIndications, v|fileCapsule, 8)
}

// withdraw takes a capsule back that no boot has taken yet.
func (c *call) withdraw(t *trial) error {
	if c.st.Slots[t.To].Capsule == 0 {
		return nil
	}
	path := c.path(filepath.Join(esp, capsuleDir, capsule))
	if err := c.Disk.RemoveAll(path); err != nil {
		return err
	}
	v, err := c.variable(varIndications)
	if err != nil || v&fileCapsule == 0 {
		return nil
	}
	return c.setVariable(varIndications, v&^fileCapsule, 8)
}
