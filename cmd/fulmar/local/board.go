// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/peercred"
	"fulmar/schema/onboard"
)

const (
	// askTime bounds a question that waits for nothing.
	askTime = 20 * time.Second
	// silence is how long an answer of many lines may say nothing: a board says something
	// each five seconds.
	silence = 20 * time.Second
	// maxAnswer bounds an answer in bytes: 256 commands with all they hold take 3 MiB.
	maxAnswer = 8 << 20
)

// board asks the fulmard behind a socket.
type board struct {
	path string
	wait time.Duration
	http *http.Client
}

func open(path string) *board { return patient(path, askTime) }

// patient asks a board that may take so long for an answer.
func patient(path string, wait time.Duration) *board {
	b := &board{path: path, wait: wait}
	b.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ResponseHeaderTimeout: wait,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return b.dial(ctx) },
	}}
	return b
}

// dial connects, and makes sure that it is fulmard who listens: a lie about a valve that
// is closed costs more than no answer.
func (b *board) dial(ctx context.Context) (net.Conn, error) {
	st, err := os.Lstat(b.path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return nil, fault.New(fault.OtherSocket, "%s is no socket (%v)", b.path, st.Mode())
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.path)
	if err != nil {
		return nil, err
	}
	peer, err := peercred.Of(conn)
	if err == nil {
		err = b.trusted(peer.UID)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// trusted takes root, this user, and who owns the folder of the socket.
func (b *board) trusted(uid int) error {
	st, err := os.Stat(filepath.Dir(b.path))
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if uid == 0 || uid == os.Geteuid() || ok && uid == int(sys.Uid) {
		return nil
	}
	return fault.New(fault.OtherSocket, "user id %d listens at %s, whose folder is another user's", uid, b.path)
}

// away puts an error of the connection into words.
func (b *board) away(err error) error {
	if _, coded := fault.Of(err); coded && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	var u *url.Error
	if errors.As(err, &u) { // without the made-up URL
		err = u.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fault.New(fault.BoardClosed, "%s: permission denied\n  do: sudo, or as a member of the group fulmar", b.path)
	}
	return fault.New(fault.BoardAway, "no answer from the board at %s: %w\n  do: systemctl status fulmard", b.path, err)
}

func (b *board) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://board"+path, r)
	if err != nil {
		return nil, err
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, b.away(err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, b.problem(res)
	}
	return res, nil
}

// ask gives the only value of an answer.
func (b *board) ask(ctx context.Context, method, path string, body, into any) error {
	ctx, stop := context.WithTimeout(ctx, b.wait)
	defer stop()
	res, err := b.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fault.New(fault.BoardAway, "the answer of the board is cut off or not JSON: %w", err)
	}
	return nil
}

// problem makes an error of a refusal of the board.
func (b *board) problem(res *http.Response) error {
	var p onboard.Problem
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&p); err != nil || p.Text == "" {
		return fault.New(fault.BoardSays, "the board answers %s: is fulmard of another release?", res.Status)
	}
	text := show.Clean(p.Text)
	if p.Do != "" {
		text += "\n  do: " + show.Clean(p.Do)
	}
	switch p.Code {
	case onboard.NotAllowed:
		return fault.New(fault.NoRight, "%s", text)
	case onboard.NotSigned, onboard.Challenged:
		return fault.New(fault.KeyRefused, "%s", text)
	case onboard.NotReady:
		return fault.New(fault.NotReady, "%s", text)
	}
	switch res.StatusCode {
	case http.StatusNotFound:
		return fault.New(fault.NotOnBoard, "%s", text)
	case http.StatusConflict, http.StatusForbidden:
		return fault.New(fault.CmdRefused, "refused (%s): %s", show.Clean(p.Code), text)
	}
	return fault.New(fault.BoardSays, "%s", text)
}

// follow gives each line of an answer that waits to each, until there is no more. The last
// one is returned.
func (b *board) follow(ctx context.Context, method, path string, body any, each func(onboard.Step)) (last onboard.Step, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	quiet := time.AfterFunc(silence, func() { stop(errQuiet) })
	defer quiet.Stop()
	res, err := b.do(ctx, method, path, body)
	if err != nil {
		return last, err
	}
	defer res.Body.Close()
	d := json.NewDecoder(res.Body)
	for {
		var s onboard.Step
		switch err := d.Decode(&s); {
		case errors.Is(err, io.EOF):
			return last, nil
		case err != nil && context.Cause(ctx) != nil:
			return last, b.away(context.Cause(ctx))
		case err != nil:
			return last, b.away(err)
		}
		quiet.Reset(silence)
		last = s
		each(s)
		if s.Final {
			return last, nil
		}
	}
}

// errQuiet ends an answer whose board hangs.
var errQuiet = errors.New("it says nothing any more")

// Board asks the fulmard behind a socket, for other commands of a person at a board.
type Board struct{ b *board }

// SocketPath is where the package's fulmard listens.
const SocketPath = socketPath

// longAsk bounds a question that waits for a step of an update, or for the fleet.
const longAsk = 100 * time.Second

// Open names a socket; it asks nothing yet.
func Open(path string) *Board { return &Board{patient(path, longAsk)} }

// Ask gives the only value of an answer that comes at once.
func (b *Board) Ask(ctx context.Context, method, path string, body, into any) error {
	return b.b.ask(ctx, method, path, body, into)
}

// Send gives a stream to the board and takes the only value of its answer.
func (b *Board) Send(ctx context.Context, path string, r io.Reader, size int64, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://board"+path, r)
	if err != nil {
		return err
	}
	req.ContentLength = size
	client := &http.Client{Transport: &http.Transport{ // who verifies for an hour says nothing meanwhile
		DisableKeepAlives: true, WriteBufferSize: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return b.b.dial(ctx) },
	}}
	res, err := client.Do(req)
	if err != nil {
		return b.b.away(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return b.b.problem(res)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fault.New(fault.BoardAway, "the answer of the board is cut off or not JSON: %w", err)
	}
	return nil
}
