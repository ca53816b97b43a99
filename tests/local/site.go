// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Site is a fleet server and its boards, all on loopback, all in one folder.
type Site struct {
	Dir  string    // absolute; fleet/, NAME/ of each board, logs
	Bin  string    // folder of the programs
	ORT  string    // path of libonnxruntime
	Echo io.Writer // the fleet's standard output goes here too; nil for none

	HTTPS string // host:port of page and API
	MQTT  string // host:port of the gateway
	Hosts string // names by which boards reach the fleet, with commas; "" is loopback only
	// Broker is host:port to which boards are sent that enrol; "" is the gateway itself.
	Broker string

	Fleet *Proc
}

// New makes a site in dir with free ports where none are given. A site that was there
// before keeps its gateway's, which its boards were told at enrolment.
func New(dir, bin, ort string) (*Site, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Site{Dir: abs, Bin: bin, ORT: ort}
	if s.HTTPS, err = freePort(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.fleetDir(), 0o700); err != nil {
		return nil, err
	}
	s.MQTT, err = s.keptPort(filepath.Join(s.Dir, "gateway"))
	return s, err
}

// keptPort gives the address in the file, or a free one, which it writes there. One that
// another program has taken meanwhile is given up: boards of an old site then have to
// enrol anew.
func (s *Site) keptPort(path string) (string, error) {
	if b, err := os.ReadFile(path); err == nil {
		if l, err := net.Listen("tcp", string(b)); err == nil {
			return string(b), l.Close()
		}
	}
	addr, err := freePort()
	if err != nil {
		return "", err
	}
	return addr, os.WriteFile(path, []byte(addr), 0o600)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *Site) fleetDir() string { return filepath.Join(s.Dir, "fleet") }

// BoardDir is the data folder of a board.
func (s *Site) BoardDir(name string) string { return filepath.Join(s.Dir, name) }

// StartFleet starts the server and waits until it answers.
func (s *Site) StartFleet(ctx context.Context) error {
	f, err := openLog(filepath.Join(s.Dir, "fleet.log"))
	if err != nil {
		return err
	}
	var w io.Writer = f
	if s.Echo != nil {
		w = io.MultiWriter(f, s.Echo)
	}
	args := []string{"serve", "--data", s.fleetDir(), "--listen", s.HTTPS, "--mqtt", s.MQTT, "--host", strings.TrimSuffix("localhost,127.0.0.1,"+s.Hosts, ",")}
	if s.Broker != "" {
		config := filepath.Join(s.Dir, "fleet.yaml")
		if err := os.WriteFile(config, []byte(fmt.Sprintf("broker: %q\n", s.Broker)), 0o600); err != nil {
			return err
		}
		args = append(args, "--config", config)
	}
	s.Fleet, err = start("fulmar-fleet", filepath.Join(s.Bin, "fulmar-fleet"), w, args...)
	if err != nil {
		return err
	}
	if err := s.waitListening(ctx, s.Fleet, s.HTTPS, s.MQTT); err != nil {
		return err
	}
	return waitSaid(ctx, s.Fleet, `msg="fleet serves"`)
}

// waitSaid waits until a program has said so: its doors are open before it has told the
// one-time password, and what is printed next speaks of that.
func waitSaid(ctx context.Context, p *Proc, word string) error {
	for end := time.Now().Add(30 * time.Second); !strings.Contains(p.Output(), word); {
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended at start:\n%s", p.Name, p.Output())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not say %q:\n%s", p.Name, word, p.Output())
		}
	}
	return nil
}

func (s *Site) waitListening(ctx context.Context, p *Proc, addresses ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, a := range addresses {
		for {
			c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", a)
			if err == nil {
				_ = c.Close()
				break
			}
			select {
			case <-p.Done():
				return fmt.Errorf("%s ended at start:\n%s", p.Name, p.Output())
			case <-ctx.Done():
				return fmt.Errorf("%s does not answer on %s:\n%s", p.Name, a, p.Output())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// fleetCommand runs a command of fulmar-fleet on the site's data and gives what
// it printed.
func (s *Site) fleetCommand(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(s.Bin, "fulmar-fleet"), append(args, "--data", s.fleetDir())...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("fulmar-fleet %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Board is what a board's config file says beside the common parts.
type Board struct {
	Name  string
	Extra string // YAML appended to the config
	// NoInfer leaves out the worker's section, for an Extra that brings its own.
	NoInfer bool
	// TPM is the path of its TPM, as in tpm.path. Such a board gets no join token: it
	// knows its fleet by the pin, and somebody has to let it in. "": a key in a file,
	// whatever TPM this machine has.
	TPM string
}

// SceneYAML is a scene camera looked at by the starter model.
const SceneYAML = `models:
  - {name: parcels, path: "builtin:parcels"}
cameras:
  - {name: belt, kind: scene, fps: 10, seed: 7, density: 1, model: parcels, event_every: 200ms, snapshot_every: 2s}
`

// PrepareBoard writes a board's config, and its join token if it needs one.
func (s *Site) PrepareBoard(b Board) (config string, err error) {
	dir := s.BoardDir(b.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	admission, key := "", ""
	if b.TPM == "" {
		admission, err = s.joinToken(dir)
		key = "key: {mode: software}"
	} else {
		admission, err = s.Pin()
		admission = "pin: " + strconv.Quote(admission)
		key = fmt.Sprintf("key: {mode: tpm}\ntpm: {path: %q}", b.TPM)
	}
	if err != nil {
		return "", err
	}
	config = filepath.Join(s.Dir, b.Name+".yaml")
	text := fmt.Sprintf(`# A board on loopback.
board: %s
data: %s
fleet: {address: %q, %s}
%s
link: {keep_alive: 10s, reconnect_window: 1s}
%s`, b.Name, dir, s.HTTPS, admission, key, b.Extra)
	if !b.NoInfer {
		text += fmt.Sprintf("infer: {mode: child, program: %s, library: %s, tensorrt: %q, threads: 1}\n", filepath.Join(s.Bin, "fulmar-infer"), s.ORT, os.Getenv("FULMAR_TRT"))
	}
	return config, os.WriteFile(config, []byte(text), 0o600)
}

// joinToken gets a board that is not enrolled yet a token, and names its file.
func (s *Site) joinToken(dir string) (string, error) {
	path := filepath.Join(dir, "join.token")
	if _, err := os.Stat(filepath.Join(dir, "identity", "identity.json")); errors.Is(err, os.ErrNotExist) {
		token, err := s.JoinToken()
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	return "token_file: " + strconv.Quote(path), nil
}

// JoinToken makes a token that lets one board in.
func (s *Site) JoinToken() (string, error) { return s.JoinTokens(1) }

// JoinTokens makes a token that lets so many boards enrol.
func (s *Site) JoinTokens(boards int) (string, error) {
	return s.fleetCommand("token", "--boards", strconv.Itoa(boards), "--for", "1h")
}

// authority is the PEM of the fleet's authority.
func (s *Site) authority() ([]byte, error) {
	found, err := filepath.Glob(filepath.Join(s.fleetDir(), "*", "ca.pem"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("%d authorities in %s, wants 1", len(found), s.fleetDir())
	}
	return os.ReadFile(found[0])
}

// Pin is what a board without a token knows its fleet by.
func (s *Site) Pin() (string, error) {
	text, err := s.authority()
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("the authority is not PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// StartBoard starts fulmard with a config of [Site.PrepareBoard].
func (s *Site) StartBoard(name, config string) (*Proc, error) {
	f, err := openLog(filepath.Join(s.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	return start("fulmard", filepath.Join(s.Bin, "fulmard"), f, "run", "--config", config)
}

// WorkerPID finds the inference worker of a board: the child of its fulmard.
func WorkerPID(board *Proc) (int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", board.PID()))
	if err != nil {
		return 0, err
	}
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			continue // a thread that ended meanwhile
		}
		for f := range strings.FieldsSeq(string(b)) {
			name, err := os.ReadFile("/proc/" + f + "/comm")
			if err == nil && strings.TrimSpace(string(name)) == "fulmar-infer" {
				return strconv.Atoi(f)
			}
		}
	}
	return 0, errors.New("no fulmar-infer among the board's children")
}
