// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package sources is where a board has its objects from: boards of its site that have them
// already, its link, and the HTTPS port of its fleet; and how it gives them on.
package sources

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"fulmar/internal/disk"
	"fulmar/ota/fetch"
	"fulmar/ota/fetch/peer"
)

const (
	// large is from what size on an object comes by HTTPS first: over the link each 64 KiB
	// are a message, which pays for what many boards hear at once and for what is small.
	large = 64 << 20
	// peerDial is how long a board of the site may take to be reached: a few round trips of
	// a LAN. fleetDial is as for the link.
	peerDial  = 3 * time.Second
	fleetDial = 15 * time.Second
	idle      = time.Minute
	// keepBytes is what stays for the others of a site, while as much again is free.
	keepBytes = 1 << 30
	// lowDisk is below how much free what is kept goes: the spool grows into the same disk.
	lowDisk = keepBytes / 2
	// giveRate is how fast all of it goes to others, in bytes a second: half of a 100 Mbit/s
	// line.
	giveRate = 6 << 20
	// again is when an address that could not be listened on is tried again: an interface
	// may come up after fulmard.
	again      = time.Minute
	headerTime = 10 * time.Second
	headerSize = 8 << 10
	// maxConns bounds what strangers of the site can hold open: four are served at a time, as
	// many again ask for more, and the rest say so and go on to the next source.
	maxConns = 16
)

// Config shapes the sources of a board.
type Config struct {
	Dir  string       // of the objects
	Link fetch.Source // the board's link
	// Fleet is the fleet's HTTPS, host:port and how to speak with it: asked at each
	// connection; "" while there is none.
	Fleet func() (address string, c *tls.Config)
	Peers []string // http://host:port of boards that may have the objects
	Give  string   // host:port on which this board gives what it has; "": nowhere
	Log   *slog.Logger
}

// Sources bring the objects of a board.
type Sources struct {
	*fetch.Fetcher
	cfg  Config
	said string // why nothing is given, said once
}

// Open makes them. They touch no network before something is fetched.
func Open(cfg Config) (*Sources, error) { return open(cfg, large) }

func open(cfg Config, large int64) (*Sources, error) {
	var list []fetch.Source
	lan := &http.Client{CheckRedirect: stay, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: peerDial}).DialContext, MaxIdleConnsPerHost: 1, IdleConnTimeout: idle,
	}}
	for _, p := range cfg.Peers {
		list = append(list, &fetch.HTTP{URL: p, Client: lan})
	}
	w := &web{fleet: cfg.Fleet}
	list = append(list, &sized{w, large, 0}, cfg.Link, &sized{w, 0, large})
	fc := fetch.Config{Dir: cfg.Dir, Sources: list, Log: cfg.Log}
	if cfg.Give != "" {
		fc.Keep = keepBytes
	}
	f, err := fetch.New(fc)
	if err != nil {
		return nil, err
	}
	return &Sources{Fetcher: f, cfg: cfg}, nil
}

// stay is a client's way with redirects: an object is where it was asked for.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// sized is a source of objects of from bytes on, and of less than below if that is not 0.
type sized struct {
	fetch.Source
	from, below int64
}

func (s *sized) Bring(ctx context.Context, j *fetch.Job) error {
	if j.Size < s.from || s.below > 0 && j.Size >= s.below {
		return fmt.Errorf("%w: another source's size", fetch.ErrNotHere)
	}
	return s.Source.Bring(ctx, j)
}

// web is the fleet's HTTPS.
type web struct {
	fleet func() (string, *tls.Config)
}

func (*web) Name() string { return "fleet https" }

func (w *web) Bring(ctx context.Context, j *fetch.Job) error {
	address, c := w.fleet()
	if address == "" {
		return fmt.Errorf("%w: the board has no HTTPS with a fleet", fetch.ErrNotHere)
	}
	// One connection a job, so that the identity of the moment is that of the connection.
	t := &http.Transport{
		TLSClientConfig: c, DialContext: (&net.Dialer{Timeout: fleetDial}).DialContext, TLSHandshakeTimeout: fleetDial,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: idle,
	}
	defer t.CloseIdleConnections()
	h := &fetch.HTTP{URL: "https://" + address, Client: &http.Client{Transport: t, CheckRedirect: stay}}
	return h.Bring(ctx, j)
}

// Tidy removes what is kept for others where the disk has become full since.
func (s *Sources) Tidy() error { return s.tidy(lowDisk) }

func (s *Sources) tidy(low int64) error {
	free, _, _, err := disk.Free(s.cfg.Dir)
	if err != nil || free >= low {
		return err
	}
	return s.Clear()
}

// Run gives objects to other boards, where the config says so, until the context ends. That
// it cannot is no reason to end the board.
func (s *Sources) Run(ctx context.Context) error {
	if s.cfg.Give == "" {
		return nil
	}
	for {
		err := s.give(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if why := err.Error(); why != s.said {
			s.said = why
			s.cfg.Log.Error("objects are not given to other boards, tried again each minute", "updates.give", s.cfg.Give, "err", err)
		}
		t := time.NewTimer(again)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

func (s *Sources) give(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Give)
	if err != nil {
		return err
	}
	s.said = ""
	s.cfg.Log.Info("objects are given to other boards", "address", l.Addr())
	srv := &http.Server{
		Handler: peer.Handler(s.cfg.Dir, giveRate), ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, IdleTimeout: idle, MaxHeaderBytes: headerSize,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // a board that fetches asks the next source
	defer stop()
	return srv.Serve(netutil.LimitListener(l, maxConns))
}
