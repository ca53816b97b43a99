// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package peer gives whole objects of a board to other boards of its site.
package peer

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"fulmar/internal/bucket"
	"fulmar/internal/merkle"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
)

const (
	// maxPeers is how many boards are served at a time.
	maxPeers = 4
	// peerStall is how long a board may take for what is written at a time.
	peerStall = 30 * time.Second
)

// Handler serves the whole objects of a folder of a fetch.Fetcher to other boards of the site: GET
// /objects/TREE with ranges, and /objects/TREE/leaves. Nothing is listed: who asks knows
// the name, which stands in a signed manifest and cannot be guessed; so it asks nobody who
// they are. It is bound to rate, in bytes a second (0: none). Nothing listens before
// somebody gives it to a server.
func Handler(dir string, rate int64) http.Handler {
	slots := make(chan struct{}, maxPeers)
	pace := bucket.New(rate, 250*time.Millisecond)
	mux := http.NewServeMux()
	serve := func(leaves bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				w.Header().Set("Retry-After", "5")
				http.Error(w, "too many boards fetch at a time", http.StatusServiceUnavailable)
				return
			}
			body, done, err := content(dir, r.PathValue("tree"), leaves)
			if err != nil {
				http.Error(w, "no such object", http.StatusNotFound)
				return
			}
			defer done()
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(&pacedWriter{ResponseWriter: w, r: r, pace: pace}, r, "", time.Time{}, body)
		}
	}
	mux.HandleFunc("GET /objects/{tree}", serve(false))
	mux.HandleFunc("GET /objects/{tree}/leaves", serve(true))
	return mux
}

// content opens a whole object, or its leaves. They may be of another object where the
// disk was changed: who gets them checks.
func content(dir, name string, leaves bool) (_ io.ReadSeeker, done func(), err error) {
	tree, err := release.ParseHash(name)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range fetch.Paths(dir, tree) { // only whole ones are called so
		body, done, err := open(path, leaves)
		if err == nil {
			return body, done, nil
		}
	}
	return nil, nil, fs.ErrNotExist
}

func open(path string, leaves bool) (_ io.ReadSeeker, done func(), err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	n := info.Size()
	if leaves {
		path += fetch.LeavesSuffix
		n = (n + release.Piece - 1) / release.Piece * merkle.Size
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return io.NewSectionReader(file, 0, n), func() { _ = file.Close() }, nil
}

// pacedWriter writes at a rate.
type pacedWriter struct {
	http.ResponseWriter
	r    *http.Request
	pace *bucket.Bucket
}

func (p *pacedWriter) Write(b []byte) (n int, err error) {
	control := http.NewResponseController(p.ResponseWriter)
	for len(b) > 0 {
		part := b[:min(len(b), release.Piece)]
		if err := p.pace.Sleep(p.r.Context(), len(part)); err != nil {
			return n, err
		}
		_ = control.SetWriteDeadline(time.Now().Add(peerStall)) // best effort
		m, err := p.ResponseWriter.Write(part)
		n += m
		if err != nil {
			return n, err
		}
		b = b[len(part):]
	}
	return n, nil
}
