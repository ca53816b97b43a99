// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// maxSocketPath is what fits sun_path with its NUL, less the suffix used while
// the socket is being made.
const maxSocketPath = 107 - len(".new")

// Listen gives the socket that a service has for its callers: the one systemd opened for it, or
// else a new one at path, mode 0600. A socket left there by a killed one is
// replaced in one step, so a caller never finds half a socket.
func Listen(path string) (net.Listener, error) {
	passed, err := Listeners()
	if err != nil {
		return nil, fmt.Errorf("take the socket from systemd: %w", err)
	}
	if len(passed) > 0 {
		for _, l := range passed[1:] {
			l.Close() // the unit has one socket; a second is a mistake in it
		}
		return passed[0].Listener, nil
	}
	if path == "" || len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path of %d bytes, wants 1 to %d: use a shorter folder", len(path), maxSocketPath)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("listen on %s: something that is no socket is there; remove it", path)
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clear the way for the socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), syscall.Rename(tmp, path)); err != nil {
		ln.Close()
		return nil, fmt.Errorf("put the socket at %s: %w", path, err)
	}
	return ln, nil
}
