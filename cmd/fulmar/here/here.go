// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package here asks the fulmard of this machine: for its version and its config by
// running it, for its health and its counters at its status socket. What `fulmar` knows
// of a board comes from there, so that it need not be linked with what runs on boards.
package here

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is asked.
const (
	runTimeout    = 5 * time.Second // a program that prints and ends
	statusTimeout = 3 * time.Second
	maxAnswer     = 4 << 20 // bytes; metrics of 64 cameras take 100 KiB
)

// Config is the part of a board's config that matters here.
type Config struct {
	Board string `json:"board"`
	Data  string `json:"data"`
	Fleet struct {
		Address   string `json:"address"`
		TokenFile string `json:"token_file"`
		Pin       string `json:"pin"`
	} `json:"fleet"`
	Broker struct {
		Address string `json:"address"`
	} `json:"broker"`
	Key struct {
		Mode string `json:"mode"`
	} `json:"key"`
	TPM struct {
		Path     string `json:"path"`
		Required bool   `json:"required"`
	} `json:"tpm"`
	Infer struct {
		Mode     string `json:"mode"`
		Library  string `json:"library"`
		TensorRT string `json:"tensorrt"`
	} `json:"infer"`
	Status struct {
		Listen    string `json:"listen"`
		TokenFile string `json:"token_file"`
	} `json:"status"`
}

// Shown is a board's config and the files it is from.
type Shown struct {
	Files  []string          `json:"files"`
	From   map[string]string `json:"from"` // of keys that a file gives
	Config Config            `json:"config"`
}

// Run runs a program that prints something and ends, within five seconds where ctx has no
// bound of its own. Its error is what it said.
func Run(ctx context.Context, program string, args ...string) (string, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, runTimeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, program, args...)
	out, errs := &bounded{}, &bounded{}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = time.Second // a child of it may hold the pipes
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s %s: gave no answer in time", filepath.Base(program), strings.Join(args, " "))
	case errors.As(err, &exit):
		say := strings.TrimSpace(errs.String())
		if say == "" {
			say = strings.TrimSpace(out.String())
		}
		return out.String(), &ExitError{exit.ExitCode(), say}
	case err != nil:
		return "", fmt.Errorf("run %s: %w", program, err)
	}
	return out.String(), nil
}

// ExitError is a program that ended with another code than 0, and what it said.
type ExitError struct {
	Code int
	Say  string
}

func (e *ExitError) Error() string {
	if e.Say == "" {
		return fmt.Sprintf("ended with code %d and said nothing", e.Code)
	}
	return e.Say
}

// bounded keeps the first maxAnswer bytes. The buffer is no embedded one, whose ReadFrom
// would know no bound.
type bounded struct{ b bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.b.Write(p[:min(len(p), maxAnswer-b.b.Len())])
	return len(p), nil
}

func (b *bounded) String() string { return b.b.String() }

// Show gives the config that is in force with the file at path, as fulmard reads it.
func Show(ctx context.Context, fulmard, path string) (*Shown, error) {
	out, err := Run(ctx, fulmard, "config", "show", "--json", path)
	if err != nil {
		return nil, err
	}
	s := new(Shown)
	if err := json.Unmarshal([]byte(out), s); err != nil || s.Config.Data == "" {
		return nil, errors.Join(errors.New("fulmard config show --json gave something else: is it as new as this fulmar?"), err)
	}
	return s, nil
}

// Health is what a board says of itself.
type Health struct {
	OK       bool     `json:"ok"`
	Causes   []string `json:"causes"`
	Link     string   `json:"link"` // "up" while records flow
	Worker   string   `json:"worker"`
	SpoolKey string   `json:"spool_key"`
	Identity *struct {
		State       string `json:"state"` // one of the State constants
		Key         string `json:"key"`   // tpm, software
		TPM         string `json:"tpm"`   // discrete, firmware, virtual, unknown
		Trust       string `json:"trust"`
		Fingerprint string `json:"fingerprint"`
		Refusal     string `json:"refusal"` // the fleet's code
	} `json:"identity"`
}

// Where a board stands with its identity (docs/enrolment.md).
const (
	StateEnrolled  = "enrolled"
	StateApproval  = "waiting_approval"
	StateEnrolling = "enrolling"
	StateNoTPM     = "tpm_missing"
	StateTPM       = "tpm_failing"
)

// Status asks a board at its status socket or port.
type Status struct {
	client *http.Client
	token  string
	where  string
}

// ErrOff says that the config has status.listen off.
var ErrOff = errors.New("status.listen is off in its config, so nobody can ask it")

// Ask gives the way to the status of the board with this config.
func Ask(c *Config) (*Status, error) {
	network, address := "unix", filepath.Join(c.Data, "status.sock")
	s := &Status{}
	if l := c.Status.Listen; l == "off" {
		return nil, ErrOff
	} else if path, ok := strings.CutPrefix(l, "unix:"); ok {
		address = path
	} else if l != "" {
		network, address = "tcp", l
		b, err := os.ReadFile(c.Status.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read status.token_file: %w", err)
		}
		s.token = strings.TrimSpace(string(b))
	}
	s.where = address
	s.client = &http.Client{Timeout: statusTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	return s, nil
}

// Where is the socket or the port that is asked.
func (s *Status) Where() string { return s.where }

func (s *Status) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://board"+path, nil)
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) { // without the made-up URL
			err = op
		}
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil && res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
		err = fmt.Errorf("%s answers %s", s.where, res.Status)
	}
	return b, err
}

// Health asks how the board is.
func (s *Status) Health(ctx context.Context) (*Health, error) {
	b, err := s.get(ctx, "/healthz")
	if err != nil {
		return nil, err
	}
	h := new(Health)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%s gives no health: %w", s.where, err)
	}
	return h, nil
}

// Metrics asks for the counters and gauges without labels, and for the sum over the
// labels of those that have some.
func (s *Status) Metrics(ctx context.Context) (map[string]float64, error) {
	b, err := s.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(b), nil
}

// parseMetrics reads Prometheus' text format; what it does not understand it leaves out.
func parseMetrics(b []byte) map[string]float64 {
	out := map[string]float64{}
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		name, value := text, ""
		if open := strings.IndexByte(text, '{'); open >= 0 {
			end := strings.LastIndexByte(text, '}')
			if end < open {
				continue
			}
			name, value = text[:open], text[end+1:]
		} else if i := strings.IndexByte(text, ' '); i > 0 {
			name, value = text[:i], text[i+1:]
		}
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		if v, err := strconv.ParseFloat(f[0], 64); err == nil {
			out[name] += v
		}
	}
	return out
}

// Identity is what enrolment gave the board; it holds no secret.
type Identity struct {
	Tenant string `json:"tenant"`
	Board  string `json:"board"`
	Broker string `json:"broker"`
	Trust  string `json:"trust"`
}

// identityFile is where fulmard keeps it, in its data folder.
const identityFile = "identity/identity.json"

// ReadIdentity reads the identity in a data folder. The folder is another user's, so
// what it leads to is not followed out of it, and the error for none wraps
// fs.ErrNotExist.
func ReadIdentity(data string) (*Identity, error) {
	root, err := os.OpenRoot(data)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read
	st, err := root.Stat(identityFile)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxAnswer {
		return nil, fmt.Errorf("%s/%s is no file of a sensible size", data, identityFile)
	}
	b, err := root.ReadFile(identityFile)
	if err != nil {
		return nil, err
	}
	id := new(Identity)
	if err := json.Unmarshal(b, id); err != nil || id.Board == "" {
		return nil, errors.Join(fmt.Errorf("%s/%s is damaged", data, identityFile), err)
	}
	return id, nil
}

// SetIdentityAside moves the identity in a data folder away, so that fulmard asks the
// fleet anew with the key that it has; back moves it back if there is no new one.
func SetIdentityAside(data string) (back func() error, err error) {
	const aside = identityFile + ".old" // as fulmard itself calls it
	move := func(from, to string) error {
		root, err := os.OpenRoot(data)
		if err != nil {
			return err
		}
		return errors.Join(root.Rename(from, to), root.Close())
	}
	if err := move(identityFile, aside); err != nil {
		return nil, fmt.Errorf("set the identity aside: %w", err)
	}
	return func() error {
		if _, err := ReadIdentity(data); err == nil {
			return nil
		}
		return move(aside, identityFile)
	}, nil
}
