// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fulmar/cmd/fulmar/here"
	"fulmar/internal/atomicfile"
)

// dropIn is the file of ours among the drop-ins; what a person writes comes later in the
// order of names, and wins.
const dropIn = "10-enrolment.yaml"

// group reads what enrol writes: fulmard's.
const group = "fulmar"

// dropInDir is the folder of drop-ins of a config, as in agent/config.
func dropInDir(config string) string {
	return strings.TrimSuffix(config, filepath.Ext(config)) + ".d"
}

// gid is the group's number; -1 where there is none or it cannot be given.
func gid() int {
	g, err := user.LookupGroup(group)
	if err != nil || os.Geteuid() != 0 {
		return -1
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return n
}

// write puts token and drop-in where fulmard reads them. If it fails, or if fulmard does
// not take the config with it, everything is as it was.
func (r *run) write(ctx context.Context, t *ticket) (string, error) {
	dir := dropInDir(r.o.Config)
	path := filepath.Join(dir, dropIn)
	say, err := r.tryWrite(ctx, t, dir, path)
	if err == nil {
		return say, nil
	}
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{What: "the config could not be written", Because: err.Error(), Do: "mend that (df -h, mount, id), then fulmar enrol again"}
	}
	for i := len(r.undo) - 1; i >= 0; i-- {
		if uerr := r.undo[i](); uerr != nil {
			f.Because += "; and it is not as it was: " + uerr.Error()
		}
	}
	r.undo = nil
	f.What += "; nothing is changed"
	return "", f
}

func (r *run) tryWrite(ctx context.Context, t *ticket, dir, path string) (string, error) {
	g := gid()
	if err := os.Mkdir(dir, 0o750); err == nil && g >= 0 {
		err = os.Chown(dir, -1, g)
		if err != nil {
			return "", err
		}
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if r.was != nil {
		if err := r.setAside(); err != nil {
			return "", err
		}
	}
	if t.token.Secret != "" {
		token := t.token
		token.Address = "" // the drop-in says it, and older agents read this form too
		if err := r.replace(r.o.TokenFile, []byte(token.String()+"\n"), g); err != nil {
			return "", err
		}
	}
	if err := r.replace(path, r.dropIn(t), g); err != nil {
		return "", err
	}
	if _, err := here.Run(ctx, r.program, "config", "check", r.o.Config); err != nil {
		return "", &Failure{What: "fulmard does not take the config with " + path, Because: strings.TrimPrefix(err.Error(), "fulmard: "), Do: "mend what it names, then fulmar enrol again"}
	}
	s, err := here.Show(ctx, r.program, r.o.Config)
	if err != nil {
		return "", err
	}
	if got := s.Config.Fleet.Address; got != t.address { // a later file says otherwise
		return "", &Failure{
			What: "the fleet's address would be " + got + " and not " + t.address, Because: s.From["fleet.address"] + " is read after " + path,
			Do: "take fleet.address out of it, then fulmar enrol again",
		}
	}
	return path, nil
}

// replace writes a file that a group reads, and notes how to have the old one again.
func (r *run) replace(path string, b []byte, g int) error {
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.undo = append(r.undo, func() error { return os.Remove(path) })
	case err != nil:
		return err
	default:
		r.undo = append(r.undo, func() error { return atomicfile.WriteFileGroup(path, old, 0o640, g) })
	}
	if err := atomicfile.WriteFileGroup(path, b, 0o640, g); err != nil {
		r.undo = r.undo[:len(r.undo)-1] // the old one is there
		return err
	}
	return nil
}

// setAside has fulmard ask anew.
func (r *run) setAside() error {
	back, err := here.SetIdentityAside(r.data)
	if err != nil {
		return err
	}
	r.undo = append(r.undo, back)
	return nil
}

// dropIn is the text of our file.
func (r *run) dropIn(t *ticket) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by fulmar enrol on %s, and anew by each enrolment. What differs for this\n# board goes into a file that comes later in the order of names.\n", time.Now().UTC().Format(time.DateOnly))
	board := r.o.Board
	if board == "" && r.was != nil {
		board = r.was.Board
	}
	if board != "" {
		fmt.Fprintf(&b, "board: %q\n", board)
	}
	fmt.Fprintf(&b, "fleet:\n  address: %q\n", t.address)
	if t.token.Secret != "" {
		fmt.Fprintf(&b, "  token_file: %q\n", r.o.TokenFile)
	}
	if r.o.Pin != "" {
		fmt.Fprintf(&b, "  pin: %q\n", hex.EncodeToString(t.pin[:]))
	}
	return b.Bytes()
}

// restart starts fulmard anew, so that it reads its config.
func (r *run) restart(ctx context.Context) (string, error) {
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		return r.byHand(), nil
	}
	if state, _ := here.Run(ctx, systemctl, "is-enabled", r.o.Unit); strings.TrimSpace(state) == "disabled" {
		_, _ = here.Run(ctx, systemctl, "enable", r.o.Unit) // what fails here fails below
	}
	_, _ = here.Run(ctx, systemctl, "reset-failed", r.o.Unit) // one that ended too often may start again
	out, err := exec.CommandContext(ctx, systemctl, "restart", r.o.Unit).CombinedOutput()
	say := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return r.o.Unit, nil
	case strings.Contains(say, "not been booted with systemd"), strings.Contains(say, "Failed to connect to bus"):
		return r.byHand(), nil
	}
	log := ""
	if journal, jerr := here.Run(ctx, "journalctl", "-u", r.o.Unit, "-n", "3", "-o", "cat", "--no-pager"); jerr == nil {
		log = "\n" + strings.TrimSpace(journal)
	}
	return "", &Failure{What: "fulmard did not start", Because: say + log, Do: "journalctl -u " + r.o.Unit + " tells more; then fulmar enrol again"}
}

func (r *run) byHand() string {
	r.note("There is no systemd here: start fulmard anew yourself now (fulmard run --config %s). Waiting for it.", r.o.Config)
	return "by hand"
}
