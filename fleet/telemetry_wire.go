// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fulmar/fleet/alerts"
	"fulmar/fleet/alerts/hooks"
	"fulmar/fleet/joins"
	"fulmar/fleet/store"
	"fulmar/fleet/telemetry"
	"fulmar/fleet/telemetry/overview"
	"fulmar/fleet/web"
)

// openTelemetry opens the time series. They are a projection of the ledger: what cannot
// be opened is put aside, once, and made anew, and never keeps boards from being heard.
func (s *Server) openTelemetry(src *store.Store) error {
	dir := filepath.Join(s.cfg.Data, "telemetry")
	from := telemetry.Sources{
		Ledger: s.ledger.Read, Boards: overview.Boards(src, func(b *web.Board) string { return b.Meta.Site }), Sites: joins.Sites(s.reg.Meta()),
	}
	db, err := telemetry.Open(dir, s.cfg.Telemetry, from, s.log)
	if err == nil {
		s.series = db
		return nil
	}
	if cerr := s.cfg.Telemetry.Validate(); cerr != nil {
		return err
	}
	aside := dir + ".damaged" // the one before goes: two of them could fill the disk
	s.log.Error("telemetry cannot be opened: it is put aside and made anew from the ledger", "aside", aside, "error", err.Error())
	if merr := errors.Join(os.RemoveAll(aside), os.Rename(dir, aside)); merr != nil {
		return fmt.Errorf("put telemetry aside: %w", errors.Join(merr, err))
	}
	s.series, err = telemetry.Open(dir, s.cfg.Telemetry, from, s.log)
	return err
}

// keepSeries feeds the time series for as long as the server runs. A fault of theirs
// ends them alone.
func (s *Server) keepSeries(ctx context.Context) error {
	if err := s.series.Run(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("telemetry has ended; boards are heard on, the next start takes it up", "error", err.Error())
		<-ctx.Done()
	}
	return nil
}

// newAlerts makes the watch over the rules, and the webhooks that tell of it.
func (s *Server) newAlerts(src *store.Store) (*alerts.Watch, error) {
	hooked := hooks.New(s.reg.Database(), hooks.Config{Release: s.cfg.Release, Log: s.log})
	return alerts.New(context.Background(), s.reg.Database(), hooked, alerts.Config{
		Overview: src.Overview, Instant: joins.Instant(s.series), URL: s.pageURL(), Log: s.log,
	})
}

// pageURL is where people find the page: https://HOST:PORT, "" where that is not known,
// and what tells of it has no links then.
func (s *Server) pageURL() string {
	address, err := Address(s.cfg.Data)
	if err != nil || address == "" {
		return ""
	}
	return "https://" + address
}
