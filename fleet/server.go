// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"fulmar/fleet/ingest/pictures"

	"fulmar/fleet/alerts"
	"fulmar/fleet/api"
	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/clones"
	"fulmar/fleet/commands"
	"fulmar/fleet/enrol"
	"fulmar/fleet/entrance"
	"fulmar/fleet/gateway"
	"fulmar/fleet/gateway/foreign"
	"fulmar/fleet/ingest"
	"fulmar/fleet/joins"
	"fulmar/fleet/keyring"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/store"
	"fulmar/fleet/telemetry"
	"fulmar/fleet/twins"
	"fulmar/fleet/updates"
	"fulmar/fleet/web"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// doorsGrace and ingestGrace together stay under the promised five seconds.
	doorsGrace  = 3500 * time.Millisecond
	ingestGrace = 1200 * time.Millisecond

	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	writeTimeout  = 60 * time.Second // streams set their own
	maxHeader     = 16 << 10

	// authorityWarn is how long before its end an authority has to have a successor:
	// boards hear of one within 60 days, and people take longer.
	authorityWarn = 365 * 24 * time.Hour
)

// Server is the fleet's server.
type Server struct {
	cfg     Config
	log     *slog.Logger
	lock    *os.File
	ca      *ca.Authority
	reg     *registry.Registry
	book    *audit.Book
	unkey   func() error // lets the holder of the book's key go
	keys    *keyring.Keyring
	ledger  *store.DB
	ingest  *ingest.Ingest
	proofs  *proof.Checker
	gate    *gateway.Gateway
	desk    *enrol.Desk
	clones  *clones.Watch
	rolls   *runner.Rollouts
	updates *updates.Updates
	orders  *commands.Commands
	series  *telemetry.DB
	alerts  *alerts.Watch
	shadow  *twins.Twins  // what boards shall be
	twins   atomic.Uint64 // clones found
	roll    rollCall
	wiping  sync.Mutex
	page    *web.Handler
	https   net.Listener
	mqtt    net.Listener
	http    *http.Server
	out     *foreign.Client // nil where no foreign broker is named

	certMu sync.Mutex
	cert   *tls.Certificate
}

// New opens the data folder and the ports. firstPassword is called with the
// administrator's one-time password when this is the first start.
func New(cfg Config, firstPassword func(string), log *slog.Logger) (_ *Server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	s := &Server{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if err := s.openData(); err != nil {
		return nil, err
	}
	if s.https, err = listen("listen", cfg.Listen); err != nil {
		return nil, err
	}
	if err := s.keepAddress(); err != nil {
		s.log.Warn("join tokens will not tell boards where the fleet is", "err", err)
	}
	if s.mqtt, err = listen("mqtt", cfg.MQTT); err != nil {
		return nil, err
	}
	if err := s.wire(); err != nil {
		return nil, err
	}
	pw, err := s.reg.Accounts().EnsureAdmin(context.Background())
	if err != nil {
		return nil, err
	}
	if pw != "" {
		firstPassword(pw)
	}
	return s, nil
}

func listen(key, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is taken by another program; stop it or choose another port", key, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

func (s *Server) openData() (err error) {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.cfg.Data, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("lock data folder: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock data folder: another fulmar-fleet serves %s; stop it first", s.cfg.Data)
	}
	if s.ca, err = ca.OpenWith(filepath.Join(s.cfg.Data, "ca"), OpenTPMKey); err != nil {
		return err
	}
	if _, err = s.certificate(nil); err != nil { // a key that cannot sign is found now, not by the first board
		return err
	}
	if left := time.Until(s.ca.NotAfter()); left < authorityWarn {
		s.log.Warn("the certificate of the authority ends soon: no board connects after that; see docs/keys.md", "ends", s.ca.NotAfter().Format(time.DateOnly))
	}
	if s.keys, err = keyring.Open(filepath.Join(s.cfg.Data, keyring.Dir), OpenTPMKey); err != nil {
		return err
	}
	if s.reg, err = registry.Open(s.cfg.Data); err != nil {
		return err
	}
	if s.book, s.unkey, err = OpenBook(s.cfg.Data, s.reg); err != nil {
		return err
	}
	if err = s.book.Begin(context.Background()); errors.Is(err, audit.ErrBroken) {
		s.log.Error("the audit log is not signed; see fulmar-fleet audit --verify", "err", err)
	} else if err != nil {
		return err
	}
	s.ledger, err = store.OpenLedger(s.cfg.Data)
	return err
}

// wire makes the parts and joins them.
func (s *Server) wire() error {
	blobs, err := pictures.New(filepath.Join(s.cfg.Data, "pictures"))
	if err != nil {
		return err
	}
	hub := api.NewHub()
	src := store.New(s.ledger, s.enrolled, blobs.Open)
	if err := s.wireParts(src, blobs, hub); err != nil {
		return err
	}
	who := entrance.New(s.reg.Accounts())
	s.page, err = web.New(web.Config{Release: s.cfg.Release, Pages: s.pages(src), Log: s.log}, who)
	if err != nil {
		return err
	}
	return s.wireHTTP(src, who, hub)
}

// wireParts makes what hears boards, and what judges and changes them.
func (s *Server) wireParts(src *store.Store, blobs *pictures.Folder, hub *api.Hub) (err error) {
	keep := s.cfg.Keep
	s.ingest = ingest.New(ingest.Config{
		TelemetryFor: keep.Telemetry, TelemetryBytes: keep.TelemetryMiB << 20,
		EventsFor: keep.Events, EventsBytes: keep.EventsMiB << 20,
		PicturesBytes: keep.PicturesMiB << 20, BoardPictures: keep.BoardPicturesMiB << 20,
		Changed: hub.Notify,
	}, s.ledger, blobs, s.log)
	s.proofs = proof.New(s.reg, s.reg.Proofs(), s.log)
	s.clones = clones.New()
	policy, err := s.cfg.Enrol.policy()
	if err != nil {
		return err
	}
	s.desk = enrol.New(policy, s.ca, s.reg, s.log)
	if err := s.openTelemetry(src); err != nil {
		return err
	}
	if s.alerts, err = s.newAlerts(src); err != nil {
		return err
	}
	shadow := joins.Twins(s.reg.Twins(), s.keys, func() *gateway.Gateway { return s.gate })
	shadow.Log = s.log
	s.shadow = twins.New(shadow)
	if err := s.wireUpdates(src); err != nil {
		return err
	}
	s.orders, err = commands.New(context.Background(), commands.Config{
		Rows: s.reg.Commands(), Sign: s.keys.SignCommand, Courier: joins.CommandCourier(func() *gateway.Gateway { return s.gate }),
		Fleet: joins.CommandBoards{Look: src.Overview, Told: (&joins.Kept{Ask: s.shadow.Commands}).Get}, Approve: s.cfg.Commands.Approve, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.gate, err = gateway.New(gateway.Config{Listener: s.mqtt, Hello: s.hello, Attest: s.updates, Updates: s.rolls, Objects: s.updates, Twins: s.shadow, Commands: s.orders, Keys: s.keys, TLS: &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: s.certificate,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.ca.Pool(),
	}}, s.ingest, s.reg, s.log)
	if err != nil {
		return err
	}
	s.updates.Serve()
	return s.wireForeign(blobs)
}

// wireHTTP puts enrolment, API, metrics and page behind one port.
func (s *Server) wireHTTP(src *store.Store, who entrance.Auth, hub *api.Hub) error {
	broker, err := s.broker()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	_, keySet := s.keys.KeySet()
	boards := api.NewEnrolment(desk{s.desk, src.Stale}, s.ca.PEM(), keySet, broker, s.log)
	for _, path := range []string{schema.EnrolPath, schema.ProvePath, schema.RenewPath} {
		mux.Handle(path, boards)
	}
	if err := s.wireAPI(mux, src, who, hub); err != nil {
		return err
	}
	mux.Handle("GET /metrics", s.metrics(who))
	mux.Handle("GET /objects/", s.updates.Handler(s.ca, s.reg))
	// Forms and anything that changes state only from our own pages. Boards and
	// programs send no Origin and no Sec-Fetch-Site and pass.
	mux.Handle("/", s.page)
	s.http = &http.Server{
		Handler:           bodyDeadline(http.NewCrossOriginProtection().Handler(mux)),
		ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // strangers' handshakes
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, GetCertificate: s.certificate, NextProtos: []string{"h2", "http/1.1"},
			// Boards renewing show theirs, which may have expired: Enrolment verifies it.
			ClientAuth: tls.RequestClientCert, ClientCAs: s.ca.Pool(),
		},
	}
	return nil
}

// broker is what boards are told at enrolment: the config's word, or the port alone.
func (s *Server) broker() (string, error) {
	if s.cfg.Broker != "" {
		return s.cfg.Broker, nil
	}
	_, port, err := net.SplitHostPort(s.mqtt.Addr().String())
	if err != nil {
		return "", fmt.Errorf("address of the gateway: %w", err)
	}
	return ":" + port, nil
}

// bodyDeadline bounds the reading of a request's body. The server's ReadTimeout
// would do so too, but it would also cut streams, whose connection is read on.
func bodyDeadline(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout)) // HTTP/1 and 2 both can
		}
		h.ServeHTTP(w, r)
	})
}

// certificate gives the server's certificate, made anew before it ages.
func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.certMu.Lock()
	defer s.certMu.Unlock()
	if ca.Stale(s.cert, time.Now()) {
		c, err := s.ca.Server(s.cfg.names())
		if err != nil {
			return nil, err
		}
		s.cert = c
	}
	return s.cert, nil
}

// HTTPSAddr tells where the page and the API are.
func (s *Server) HTTPSAddr() string { return s.https.Addr().String() }

// MQTTAddr tells where boards connect.
func (s *Server) MQTTAddr() string { return s.mqtt.Addr().String() }

// Run serves until the context ends or a part fails. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.close() //nolint:errcheck // the log is folded at the next start
	// Ingest outlives the doors: what they accepted is committed.
	behind, stopIngest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopIngest()
	back := run.New(behind)
	back.Go("ingest", s.ingest.Run)
	back.Go("telemetry", s.keepSeries)
	back.Go("twins", s.shadow.Run)

	doors := run.New(ctx)
	doors.Go("ingest", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-back.Context().Done():
			return errors.New("ended early")
		}
	})
	doors.Go("gateway", s.gate.Run)
	doors.Go("attestations", s.keepAsking)
	doors.Go("https", s.serveHTTPS)
	doors.Go("page", s.page.Run)
	doors.Go("rollouts", s.rolls.Run)
	doors.Go("updates", s.updates.Run)
	doors.Go("commands", s.orders.Run)
	doors.Go("alerts", s.alerts.Run)
	doors.Go("audit", func(ctx context.Context) error { return s.book.Run(ctx, s.log) })
	doors.Go("accounts", func(ctx context.Context) error { return s.reg.Accounts().Run(ctx, s.log) })
	if s.out != nil {
		doors.Go("foreign broker", s.out.Run)
	}
	s.log.Info("fleet serves", "https", s.HTTPSAddr(), "mqtt", s.MQTTAddr(), "data", s.cfg.Data)
	err := doors.Wait(doorsGrace)
	stopIngest()
	if ingestErr := back.Wait(ingestGrace); ingestErr != nil {
		err = ingestErr // the cause of the doors' closing
	}
	return err
}

func (s *Server) serveHTTPS(ctx context.Context) error {
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		// Requests get a moment; streams never end by themselves and are cut.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := s.http.Shutdown(grace); err != nil {
			err = s.http.Close()
			done <- err
			return
		}
		done <- nil
	})
	err := s.http.ServeTLS(s.https, "", "")
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve https: %w", err)
	}
	return <-done
}

func (s *Server) close() error {
	var errs []error
	if s.https != nil {
		_ = s.https.Close() // both are closed already after Run
	}
	if s.mqtt != nil {
		_ = s.mqtt.Close()
	}
	if s.series != nil {
		errs = append(errs, s.series.Close())
	}
	if s.updates != nil {
		s.updates.Close()
	}
	if s.ledger != nil {
		errs = append(errs, s.ledger.Close())
	}
	if s.keys != nil {
		errs = append(errs, s.keys.Close())
	}
	if s.unkey != nil {
		errs = append(errs, s.unkey())
	}
	if s.reg != nil {
		errs = append(errs, s.reg.Close())
	}
	if s.ca != nil {
		errs = append(errs, s.ca.Close())
	}
	if s.lock != nil {
		// Explicitly: a child that is being started at this moment has the descriptor too.
		errs = append(errs, syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close())
	}
	return errors.Join(errs...)
}
