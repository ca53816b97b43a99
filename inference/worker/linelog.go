// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"log/slog"
	"sync"
	"time"
)

// Bounds of what a child may write into our log.
const (
	maxLine       = 1024 // bytes; the rest of a longer line is cut
	linesPerSpan  = 100  // a panic's traces fit; a loop of errors does not fill the disk
	lineSpan      = 10 * time.Second
	skippedNotice = "worker wrote too much, lines left out"
)

// lineLog turns a child's output into log lines. Stdout and stderr share one.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	line    []byte
	span    time.Time
	count   int
	skipped int
}

// Write takes output in any pieces; it never fails.
func (l *lineLog) Write(p []byte) (int, error) {
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

func (l *lineLog) add(p []byte) {
	l.line = append(l.line, p[:min(len(p), maxLine-len(l.line))]...)
}

func (l *lineLog) emit() {
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
	l.log.Info("worker says", "line", string(l.line))
}

func (l *lineLog) tellSkipped() {
	if l.skipped > 0 {
		l.log.Warn(skippedNotice, "count", l.skipped)
		l.skipped = 0
	}
}

// flush logs the last line, which may lack its end.
func (l *lineLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.emit()
	l.tellSkipped()
}
