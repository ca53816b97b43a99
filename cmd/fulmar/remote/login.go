// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/here"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
	"github.com/spf13/cobra"
)

// profile is a log-in, kept for the user alone.
type profile struct {
	Fleet string `json:"fleet"` // HOST:PORT
	Pin   string `json:"pin,omitempty"`
	Token string `json:"token"`
}

// profilePath is where the log-in is kept: the folder of configuration, as the XDG
// rules name it.
func profilePath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the folder of your settings: %w", err)
	}
	return filepath.Join(dir, "fulmar", "fleet.json"), nil
}

// readProfile gives the log-in, an empty one where there is none.
func readProfile() (p profile, err error) {
	path, err := profilePath()
	if err != nil {
		return p, nil //nolint:nilerr // a system user without a home has no log-in
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read log-in: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return p, fault.New(fault.Token, "read log-in: others may read %s; chmod 600 it, and revoke its token if they may have", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return p, fmt.Errorf("read log-in: %w", err)
	}
	if len(b) > maxTokenFile || json.Unmarshal(b, &p) != nil {
		return profile{}, fault.New(fault.Token, "read log-in: %s is damaged; fulmar logout, then fulmar login again", path)
	}
	return p, nil
}

func writeProfile(p profile) (string, error) {
	path, err := profilePath()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("keep log-in: %w", err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	if err := atomicfile.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("keep log-in: %w", err)
	}
	return path, nil
}

// LoginCommand is fulmar login.
func LoginCommand() *cobra.Command {
	f := new(Flags)
	c := &cobra.Command{
		Use: "login HOST:PORT", Short: "remember a fleet and a token for all further commands",
		Long: `The token is read from standard input: make one on the fleet's page under Settings,
or with fulmar-fleet api-token on the server. It is kept with the fleet's
fingerprint in your folder of settings, readable by you alone. Without --pin and
--ca the fingerprint of the server is shown, and you say whether it is the one that
fulmar-fleet pin prints there.`,
		Example: "  fulmar login fleet.example:8443\n  fulmar login fleet.example:8443 --pin $(cat pin) <token",
		Args:    cli.Words("the fleet's HOST:PORT"), ValidArgsFunction: cli.Nothing,
		RunE: func(c *cobra.Command, words []string) error {
			if err := login(c.Context(), words[0], *f, c.InOrStdin(), c.ErrOrStderr()); err != nil {
				return fmt.Errorf("login %s: %w", words[0], err)
			}
			return nil
		},
	}
	f.registerTrust(c)
	return c
}

// LogoutCommand is fulmar logout.
func LogoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "forget the fleet and the token of fulmar login",
		Long: "The token itself stays good: fulmar token revoke ends it.",
		Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := profilePath()
			if err != nil {
				return err
			}
			switch err := os.Remove(path); {
			case errors.Is(err, fs.ErrNotExist):
				fmt.Fprintln(c.ErrOrStderr(), "nobody was logged in here")
			case err != nil:
				return fmt.Errorf("logout: %w", err)
			default:
				fmt.Fprintln(c.ErrOrStderr(), "the log-in is forgotten; its token stays good until it ends or is revoked")
			}
			return nil
		},
	}
}

func login(ctx context.Context, address string, f Flags, in io.Reader, talk io.Writer) error {
	if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
		return fmt.Errorf("%w: %q is not HOST:PORT", cli.ErrUsage, address)
	}
	f.pin = cmp.Or(f.pin, os.Getenv("FULMAR_PIN"))
	lines := &lineReader{from: in}
	tty, terminal := in.(*os.File)
	terminal = terminal && here.IsTerminal(tty)
	if f.pin == "" && f.ca == "" && terminal {
		pin, err := firstContact(ctx, address, lines, talk)
		if err != nil {
			return err
		}
		f.pin = pin
	}
	var text string
	var err error
	if terminal {
		prompt := fmt.Sprintf("Paste an API token (the page makes one: https://%s/settings/tokens; it is not shown): ", address)
		text, err = here.AskHidden(ctx, tty, talk, prompt, maxTokenFile)
	} else {
		text, err = lines.line()
	}
	if err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	token, ok := tokenIn(text)
	if !ok {
		return fault.New(fault.Token, "what came on standard input is no API token (fk1_...)")
	}
	c, err := newClient(address, token, &f)
	if err != nil {
		return err
	}
	var me rest.Me
	if err := c.Get(ctx, "/api/v1/me", nil, &me); err != nil {
		return err
	}
	if f.ca != "" { // a file may move: its authority is kept
		return keep(talk, profile{address, "", token}, me, "; with --ca "+f.ca+" at each command")
	}
	return keep(talk, profile{address, f.pin, token}, me, "")
}

func keep(talk io.Writer, p profile, me rest.Me, remark string) error {
	path, err := writeProfile(p)
	if err != nil {
		return err
	}
	fmt.Fprintf(talk, "logged in as %s of %s, who may %s%s\nkept in %s; next: fulmar board list\n", me.Who, me.Tenant, me.Rights, remark, path)
	return nil
}

// firstContact shows the fingerprint of the authority that a server names, and asks
// whether it is the right one.
func firstContact(ctx context.Context, address string, in *lineReader, talk io.Writer) (pin string, err error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // a person decides; nothing is sent
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", noAnswer(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	sum := sha256.Sum256(chain[len(chain)-1].Raw)
	pin = hex.EncodeToString(sum[:])
	fmt.Fprintf(talk, "First contact. Does fulmar-fleet pin on the server print\n  %s ? (yes/no) ", pin)
	answer, err := in.line()
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	if answer != "yes" {
		return "", fault.New(fault.Stranger, "you did not say yes: nothing was sent, nothing is kept")
	}
	return pin, nil
}

// lineReader reads lines byte by byte, so that nothing of the next one is swallowed.
type lineReader struct{ from io.Reader }

func (l *lineReader) line() (string, error) {
	var out []byte
	for len(out) < maxTokenFile {
		b := make([]byte, 1)
		switch _, err := io.ReadFull(l.from, b); {
		case errors.Is(err, io.EOF) && len(out) > 0, err == nil && b[0] == '\n':
			return string(out), nil
		case err != nil:
			return "", err
		}
		out = append(out, b[0])
	}
	return "", fmt.Errorf("a line of over %d bytes", maxTokenFile)
}
