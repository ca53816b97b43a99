// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package linelog turns the output of a child process into lines of a log, bounded
// in length and in number: what a child writes must not fill memory or disk.
package linelog

import (
	"bytes"
	"log/slog"
	"sync"
	"time"
)

// Bounds of what is logged.
const (
	maxLine       = 1024 // bytes; the rest of a longer line is cut
	linesPerSpan  = 100  // a panic's traces fit; a loop of errors does not fill the disk
	lineSpan      = 10 * time.Second
	skippedNotice = "child wrote too much, lines left out"
)

// Writer logs each line written to it, at level info. It is safe for concurrent
// use; a child's stdout and stderr may share one.
type Writer struct {
	log *slog.Logger

	mu      sync.Mutex
	line    []byte
	span    time.Time
	count   int
	skipped int
}

// New makes a writer.
func New(log *slog.Logger) *Writer { return &Writer{log: log} }

// Write takes output in any pieces; it never fails.
func (l *Writer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.add(p)
			return n, nil
		}
		l.add(p[:i])
		l.emit()
		p = p[i+1:]
	}
}

func (l *Writer) add(p []byte) {
	l.line = append(l.line, p[:min(len(p), maxLine-len(l.line))]...)
}

func (l *Writer) emit() {
	defer func() { l.line = l.line[:0] }()
	if len(bytes.TrimSpace(l.line)) == 0 {
		return
	}
	if now := time.Now(); now.Sub(l.span) >= lineSpan {
		l.tellSkipped()
		l.span, l.count = now, 0
	}
	if l.count++; l.count > linesPerSpan {
		l.skipped++
		return
	}
	l.log.Info("child says", "line", string(l.line))
}

func (l *Writer) tellSkipped() {
	if l.skipped > 0 {
		l.log.Warn(skippedNotice, "count", l.skipped)
		l.skipped = 0
	}
}

// Flush logs the last line, which may lack its end.
func (l *Writer) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.emit()
	l.tellSkipped()
}
