// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fulmar/fleet"
	"fulmar/internal/cli"
	"fulmar/internal/sdnotify"
)

// serving are the flags of serve.
type serving struct{ config, listen, mqtt, hosts, level string }

func (d *desk) serveCommand(release string) *cobra.Command {
	s, cfg := new(serving), fleet.Default()
	c := &cobra.Command{
		Use: "serve", Short: "run the server until it is told to end", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long: "Options win over the config file. At the first start it makes its keys, its authority and\na one-time password, which it prints; not into a journal, fulmar-fleet reset-password makes another.",
		Example: `  fulmar-fleet serve --config /etc/fulmar/fleet.yaml
  fulmar-fleet serve --data fleet --listen 127.0.0.1:8443 --host localhost`,
		RunE: func(c *cobra.Command, _ []string) error { return d.serve(c, s, release) },
	}
	c.Flags().StringVar(&s.config, "config", "", "YAML file")
	c.Flags().StringVar(&s.listen, "listen", cfg.Listen, "address of page, API and enrolment")
	c.Flags().StringVar(&s.mqtt, "mqtt", cfg.MQTT, "address boards connect to")
	c.Flags().StringVar(&s.hosts, "host", "", "names and addresses the server is reached by, with commas")
	c.Flags().StringVar(&s.level, "log", "info", "least level of log lines: debug, info, warn or error")
	cli.File(c, "config", "yaml", "yml")
	cli.Takes(c, "listen", "HOST:PORT")
	cli.Takes(c, "mqtt", "HOST:PORT")
	cli.Takes(c, "host", "NAME,...")
	cli.Values(c, "log", "debug", "info", "warn", "error")
	cli.Takes(c, "log", "LEVEL")
	return c
}

func (d *desk) serve(c *cobra.Command, s *serving, release string) error {
	cfg := fleet.Default()
	if s.config != "" {
		if err := fleet.Load(s.config, &cfg); err != nil {
			return err
		}
	}
	given := c.Flags().Changed
	if given("data") {
		cfg.Data = d.data
	}
	if given("listen") {
		cfg.Listen = s.listen
	}
	if given("mqtt") {
		cfg.MQTT = s.mqtt
	}
	if given("host") {
		cfg.Hosts = strings.Split(s.hosts, ",")
	}
	abs, err := filepath.Abs(cfg.Data)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	cfg.Data, cfg.Release, cfg.Patches = abs, release, makePatch
	var lvl slog.Level
	if err := lvl.UnmarshalText([]byte(s.level)); err != nil {
		return fmt.Errorf("--log %s: wants debug, info, warn or error", s.level)
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: lvl}))
	srv, err := fleet.New(cfg, func(pw string) { tellPassword(c.OutOrStdout(), isJournal(os.Stdout, os.Getenv("JOURNAL_STREAM")), pw) }, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "the page: https://%s\n", srv.HTTPSAddr())
	systemd, err := sdnotify.FromEnv()
	if err == nil {
		// The listeners are open: who comes before Run waits in their queues.
		err = systemd.Ready()
	}
	context.AfterFunc(c.Context(), func() { _ = systemd.Stopping() }) // only words for systemctl
	if err != nil {
		log.Warn("systemd is not told", "err", err)
	}
	return srv.Run(c.Context())
}

// tellPassword shows the administrator's first password to a person. A journal is read
// by more than one, and kept.
func tellPassword(out io.Writer, journal bool, pw string) {
	if journal {
		fmt.Fprintln(out, "the administrator has no password yet: sudo -u fulmar-fleet fulmar-fleet reset-password prints one")
		return
	}
	fmt.Fprintf(out, "one-time password of the administrator, shown this once: %s\n", pw)
}

// isJournal tells whether a file is the journal's stream: stream is JOURNAL_STREAM, the
// device and inode of what systemd connected (systemd.exec(5)). Children inherit it, also
// where their output goes elsewhere.
func isJournal(f *os.File, stream string) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
