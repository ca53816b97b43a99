// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"fulmar/inference/engines/cache"
	"fulmar/internal/peercred"
)

const (
	// maxRequest is the longest request, bytes: two paths and some numbers.
	maxRequest = 16 << 10
	// maxPath is the longest path in one, bytes: PATH_MAX of Linux.
	maxPath = 4096
	// dialWait is how long the socket of builds may take to be reached and to take a
	// request: systemd queues callers, it does not serve them slowly.
	dialWait = 10 * time.Second
)

// Request asks for an engine over the socket of builds. It is one line of JSON; the
// answer is lines of [Line], of which the last tells the end. The build is cancelled when
// the asking side ends its half of the connection.
type Request struct {
	Path     string `json:"path"`
	Variant  string `json:"variant,omitempty"`
	Cache    string `json:"cache"`
	Quota    int64  `json:"quota"`
	MaxBatch int    `json:"batch"`
	Level    int    `json:"level"`
	DLACore  int    `json:"dla"`
}

// ReadRequest reads a request. What a worker would not ask for is
// an error, so that nothing in it can be an option or a path that depends on a folder.
func ReadRequest(r io.Reader) (*Job, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(r, maxRequest), maxRequest).ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("read build request: no whole line within %d bytes: %w", maxRequest, err)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var q Request
	if err := d.Decode(&q); err != nil {
		return nil, fmt.Errorf("read build request: %w", err)
	}
	if d.More() {
		return nil, errors.New("read build request: more than one on its line")
	}
	j := &Job{Path: q.Path, Variant: q.Variant, Cache: q.Cache, Quota: q.Quota, Options: cache.Options{MaxBatch: q.MaxBatch, Level: q.Level, DLACore: q.DLACore}}
	return j, j.check()
}

// check holds a job to what can be asked for.
func (j *Job) check() error {
	builtin := strings.HasPrefix(j.Path, "builtin:")
	for _, bad := range []struct {
		is   bool
		what string
	}{
		{!builtin && !filepath.IsAbs(j.Path) || len(j.Path) > maxPath, "path is neither absolute nor a builtin: one"},
		{!filepath.IsAbs(j.Cache) || len(j.Cache) > maxPath, "cache is no absolute path"},
		{len(j.Variant) > 64 || strings.HasPrefix(j.Variant, "-"), "variant is no name"},
		{j.Quota < 0, "quota is negative"},
		{j.Options.MaxBatch < 1 || j.Options.MaxBatch > 64, "batch is not 1 to 64"},
		{j.Options.Level < -1 || j.Options.Level > 10, "level is not -1 to 10"},
		{j.Options.DLACore < -1 || j.Options.DLACore > 15, "dla is not -1 to 15"},
	} {
		if bad.is {
			return errors.New("build request: " + bad.what)
		}
	}
	return nil
}

// unit asks for a build in a unit of its own and waits for its end.
func (b *Children) unit(ctx context.Context, j Job, say func(string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := b.ask(ctx, j)
	if err != nil {
		return &Error{-1, OneLine("ask for a build: " + err.Error())}
	}
	defer conn.Close()
	// The end of our half tells it to end; its own last words may still come.
	stop := context.AfterFunc(ctx, func() {
		_ = conn.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(b.grace))
	})
	defer stop()
	last := b.listen(conn, cancel, say)
	switch {
	case last.Done != nil:
		return nil
	case last.Error == "" && ctx.Err() == nil:
		return &Error{-1, "the build's unit ended without a word: killed, perhaps for its memory (journalctl -u 'fulmar-build@*')"}
	}
	return verdict(ctx, errors.New("cancelled"), last, last.Code)
}

// ask connects to the socket of builds and sends the request.
func (b *Children) ask(ctx context.Context, j Job) (*net.UnixConn, error) {
	line, err := json.Marshal(Request{
		Path: j.Path, Variant: j.Variant, Cache: j.Cache, Quota: j.Quota,
		MaxBatch: j.Options.MaxBatch, Level: j.Options.Level, DLACore: j.Options.DLACore,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	c, err := peercred.Dial(ctx, b.Socket)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UnixConn) // what unix sockets give
	if err = conn.SetWriteDeadline(time.Now().Add(dialWait)); err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
