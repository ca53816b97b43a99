// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rootfs brings the component rootfs into force: the image of a system is written to
// the partition that does not run, the firmware is told to boot it, and it is confirmed or
// gone back from (ADR 0058, docs/rootfs.md).
//
// fulmard may do nothing of that itself: it asks fulmar-rootfs, which systemd starts as root
// for one call at a time with rights for just that. Package nvidia is what it does.
//
// Experimental: no board has seen it yet (docs/unproven.md).
package rootfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"fulmar/ota"
	"fulmar/ota/install/rootfs/wire"
	"fulmar/ota/install/stamp"
	"fulmar/ota/install/tree"
	"fulmar/ota/release"
)

// Component is its name.
const Component = "rootfs"

const (
	answerWait = time.Minute      // nvbootctrl and an fsync of a slow card
	writeWait  = time.Minute      // for room in the socket: the disk behind it is slow, not dead
	verifyWait = 30 * time.Minute // an image of 16 GiB is read back
	copyBuffer = 256 << 10
)

// Rootfs asks fulmar-rootfs. It is an [ota.Installer].
type Rootfs struct {
	// Dial reaches it; nil is [wire.Socket].
	Dial func(context.Context) (net.Conn, error)
}

var errGone = errors.New("fulmar-rootfs does not answer: is fulmar-rootfs.socket enabled, and may this user open it?")

// call makes one call without bytes.
func (r *Rootfs) call(ctx context.Context, q wire.Request) (wire.Answer, error) {
	c, err := r.open(ctx, q)
	if err != nil {
		return wire.Answer{}, err
	}
	defer c.close()
	return c.answer(answerWait)
}

// conn is a call that is under way.
type conn struct {
	net.Conn
	r    *bufio.Reader
	verb string
	stop func() bool
}

func (c *conn) close() {
	c.stop()
	_ = c.Conn.Close()
}

func (r *Rootfs) open(ctx context.Context, q wire.Request) (*conn, error) {
	dial := r.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", wire.Socket)
		}
	}
	n, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %s: %w: %w", q.Verb, errGone, err)
	}
	c := &conn{Conn: n, r: bufio.NewReaderSize(n, 4096), verb: q.Verb}
	c.stop = context.AfterFunc(ctx, func() { _ = n.Close() })
	q.V = 1
	err = n.SetWriteDeadline(time.Now().Add(writeWait))
	if err == nil {
		err = wire.Write(n, q)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("rootfs: %s: %w", q.Verb, err)
	}
	return c, nil
}

func (c *conn) answer(wait time.Duration) (wire.Answer, error) {
	var a wire.Answer
	err := c.SetReadDeadline(time.Now().Add(wait))
	if err == nil {
		err = wire.ReadLine(c.r, &a)
	}
	switch {
	case err != nil:
		return wire.Answer{}, fmt.Errorf("rootfs: %s: %w", c.verb, err)
	case a.Error != "" && a.Full:
		return wire.Answer{}, fmt.Errorf("rootfs: %s: %s: %w", c.verb, a.Error, syscall.ENOSPC)
	case a.Error != "":
		return wire.Answer{}, fmt.Errorf("rootfs: %s: %s", c.verb, a.Error)
	}
	return a, nil
}

// Status tells how the two systems stand.
func (r *Rootfs) Status(ctx context.Context) (*wire.Status, error) {
	a, err := r.call(ctx, wire.Request{Verb: wire.VerbStatus})
	return a.Status, err
}

// Running implements [ota.Installer].
func (r *Rootfs) Running(ctx context.Context) (string, error) {
	a, err := r.call(ctx, wire.Request{Verb: wire.VerbStatus})
	return a.Version, err
}

// parts are the image and the capsule of a component.
func parts(c *release.Component) (image, capsule *release.File, err error) {
	for i := range c.Files {
		f := &c.Files[i]
		switch {
		case f.Unpack:
			return nil, nil, fmt.Errorf("%s is to be unpacked; an image is written as it is", f.Path)
		case strings.HasSuffix(f.Path, ".img") && image == nil:
			image = f
		case strings.HasSuffix(f.Path, ".Cap") && capsule == nil:
			capsule = f
		default:
			return nil, nil, fmt.Errorf("it holds %s; wants one NAME.img and at most one NAME.Cap", f.Path)
		}
	}
	if image == nil {
		return nil, nil, errors.New("it holds no NAME.img")
	}
	return image, capsule, nil
}

// Stage implements [ota.Installer]. It goes on where an earlier call was cut.
func (r *Rootfs) Stage(ctx context.Context, c *release.Component, paths map[string]string) (string, error) {
	token := tree.Token(c)
	if c.Name != Component || !stamp.Valid(token) {
		return "", fmt.Errorf("stage rootfs: it is %s of version %.80q", c.Name, c.Version)
	}
	image, capsule, err := parts(c)
	if err != nil {
		return "", fmt.Errorf("stage rootfs: %w", err)
	}
	for _, f := range []*release.File{image, capsule} {
		if f == nil {
			continue
		}
		q := wire.Request{Verb: wire.VerbWrite, Token: token, Version: c.Version, Kind: wire.KindImage, Size: f.Size, SHA256: f.SHA256.String()}
		if f == capsule {
			q.Kind = wire.KindCapsule
		} else if capsule != nil {
			q.Capsule = capsule.Size
		}
		if err := r.write(ctx, q, paths[f.Path]); err != nil {
			return "", err
		}
	}
	return token, nil
}

// write brings one file over.
func (r *Rootfs) write(ctx context.Context, q wire.Request, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("stage rootfs: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || fi.Size() != q.Size || !fi.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("stage rootfs: %s is not the file of %d bytes that the release says", path, q.Size), err)
	}
	c, err := r.open(ctx, q)
	if err != nil {
		return err
	}
	defer c.close()
	a, err := c.answer(verifyWait) // what is there already may be read first
	if err != nil || !a.More {
		return err
	}
	if _, err := f.Seek(a.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("stage rootfs: %w", err)
	}
	if err := c.send(f); err != nil {
		// It may have said why it reads no more.
		if _, why := c.answer(time.Second); why != nil && !errors.Is(why, os.ErrDeadlineExceeded) {
			return errors.Join(why, err)
		}
		return fmt.Errorf("stage rootfs: %w", err)
	}
	_, err = c.answer(verifyWait)
	return err
}

// send sends a file, with a deadline for each piece and not for all.
func (c *conn) send(f io.Reader) error {
	b := make([]byte, copyBuffer)
	for {
		n, err := f.Read(b)
		if n > 0 {
			if err := c.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
				return err
			}
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Base implements [ota.Installer]: a file system that was mounted is not its image any more.
func (r *Rootfs) Base(context.Context, release.Hash) (string, error) {
	return "", fmt.Errorf("%w: the system has written to its image", ota.ErrNoBase)
}

func restart(a wire.Answer) ota.Restart {
	if a.Restart {
		return ota.RestartMachine
	}
	return ota.RestartNone
}

// Switch implements [ota.Installer].
func (r *Rootfs) Switch(ctx context.Context, token string) (ota.Restart, error) {
	a, err := r.named(ctx, wire.Request{Verb: wire.VerbSwitch, Token: token})
	return restart(a), err
}

// Restart implements [ota.Restarter].
func (r *Rootfs) Restart(ctx context.Context, why string) error {
	_, err := r.call(ctx, wire.Request{Verb: wire.VerbRestart, Why: why})
	return err
}

// named makes a call about a token.
func (r *Rootfs) named(ctx context.Context, q wire.Request) (wire.Answer, error) {
	if !stamp.Valid(q.Token) {
		return wire.Answer{}, fmt.Errorf("rootfs: %s: %.140q is no token", q.Verb, q.Token)
	}
	return r.call(ctx, q)
}

// Look implements [ota.Installer].
func (r *Rootfs) Look(ctx context.Context, token string) (ota.Standing, string, error) {
	a, err := r.named(ctx, wire.Request{Verb: wire.VerbLook, Token: token})
	if err != nil {
		return ota.NotYet, "", err
	}
	for _, s := range []ota.Standing{ota.NotYet, ota.OnTrial, ota.InForce, ota.Fallen} {
		if a.Standing == s.String() {
			return s, a.Why, nil
		}
	}
	return ota.NotYet, "", fmt.Errorf("rootfs: look: standing %.40q is unknown", a.Standing)
}

// Confirm implements [ota.Installer].
func (r *Rootfs) Confirm(ctx context.Context, token string) error {
	_, err := r.named(ctx, wire.Request{Verb: wire.VerbConfirm, Token: token})
	return err
}

// Back implements [ota.Installer].
func (r *Rootfs) Back(ctx context.Context, token, why string) (ota.Restart, error) {
	a, err := r.named(ctx, wire.Request{Verb: wire.VerbBack, Token: token, Why: why[:min(len(why), 300)]})
	return restart(a), err
}

// Sweep implements [ota.Installer].
func (r *Rootfs) Sweep(ctx context.Context, keep []string) error {
	_, err := r.call(ctx, wire.Request{Verb: wire.VerbSweep, Keep: keep})
	return err
}

// Space implements [ota.Installer]: of the partition, and with a capsule of the ESP.
func (r *Rootfs) Space(ctx context.Context, c *release.Component) (need, free int64, err error) {
	image, capsule, err := parts(c)
	if err != nil {
		return 0, 0, fmt.Errorf("rootfs: %w", err)
	}
	q := wire.Request{Verb: wire.VerbSpace, Size: image.Size}
	if capsule != nil {
		q.Capsule = capsule.Size
	}
	a, err := r.call(ctx, q)
	return a.Need, a.Free, err
}
