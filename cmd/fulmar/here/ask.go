// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package here

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// AskHidden asks at a terminal and shows nothing of what is typed or pasted: a line of at
// most limit bytes, without the white space around it.
func AskHidden(ctx context.Context, f *os.File, talk io.Writer, prompt string, limit int64) (string, error) {
	fd := int(f.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("silence the terminal: %w", err)
	}
	quiet := *was
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return "", fmt.Errorf("silence the terminal: %w", err)
	}
	defer func() { // whatever ends the question, the terminal is as before
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, was)
		fmt.Fprintln(talk)
	}()
	fmt.Fprint(talk, prompt)
	type line struct {
		text string
		err  error
	}
	got := make(chan line, 1)
	go func() { // it stays behind if the person interrupts; the process ends then
		s, err := bufio.NewReader(io.LimitReader(f, limit)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		got <- line{strings.TrimSpace(s), err}
	}()
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("interrupted; nothing was changed: %w", ctx.Err())
	case l := <-got:
		return l.text, l.err
	}
}
