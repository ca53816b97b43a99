// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"fulmar/agent/commands"
	"fulmar/agent/local/updates"
	"fulmar/agent/shadow"
	"fulmar/command"
	"fulmar/internal/peercred"
	"fulmar/schema/onboard"
	"fulmar/twin"
)

// Bounds in time. People and scripts on the same machine are fast; who is not is stuck.
const (
	headerTime = 5 * time.Second  // for the head of a request
	bodyTime   = 10 * time.Second // for all of it
	writeTime  = 5 * time.Second  // for each write of an answer
	idleTime   = 30 * time.Second
	maxHeaders = 8 << 10
)

// State tells how the board is. It fills all but You, Conflicts and Version.
type State interface {
	State(ctx context.Context) onboard.State
}

// Commands does commands: agent/commands. Its errors of type [command.Error] are passed on
// with their codes.
type Commands interface {
	Kinds() []command.Kind
	// Local has a command of an actor done whom the caller knows: the result says that it
	// is accepted, why not, or how it ended.
	Local(ctx context.Context, actor, name string, args []byte, o commands.Options) (command.Result, error)
	// Challenge gives the id that an operator's key may sign next; Operator takes what it
	// signed, once.
	Challenge() (command.ID, error)
	Operator(ctx context.Context, envelope []byte) (command.Result, error)
	// Wait gives the result once it is final.
	Wait(ctx context.Context, id command.ID) (command.Result, error)
	Cancel(ctx context.Context, id command.ID, by string) (command.Result, error)
	// Watch gives the steps of all commands from now on, until ctx ends; it drops for who
	// does not take them.
	Watch(ctx context.Context) <-chan command.Report
	// List gives the newest n commands, the newest last.
	List(ctx context.Context, n int) ([]command.Report, error)
}

// Twin is the board's twin, as far as a person at the board sees and changes it:
// agent/shadow. An error of Set says why the value is not taken.
type Twin interface {
	Look() (version uint64, keys []shadow.Key)
	Set(key string, e twin.Edit) error
	Clear(key, author string) (there bool, err error)
	Conflicts() []twin.Conflict
	// History gives the changes, the newest last.
	History() []shadow.Change
}

// Config is what a server is told. The functions may give nil for what does not run, or
// not yet.
type Config struct {
	Path   string // of the socket
	Access func() Access
	// Name is who the board is; "" before it is enrolled.
	Name     func() (tenant, board string)
	State    State
	Commands func() Commands
	Twin     func() Twin
	Updates  func() updates.Updates // nil: the board has none
	// Allow is the board's policy: an error, best a *command.Error, says why an actor may
	// not have a command done now. nil: all may.
	Allow func(actor, name string) error
	Log   *slog.Logger
}

// Server serves one board's socket.
type Server struct {
	cfg    Config
	log    *refusals
	people people
	door   *door
	asked  *asked
	times  times
	now    func() time.Time
}

// times are the bounds in time; tests have shorter ones.
type times struct{ header, body, write, idle time.Duration }

// New makes a server; it does nothing before Run.
func New(cfg Config) *Server {
	log := &refusals{log: cfg.Log}
	return &Server{
		cfg: cfg, log: log, door: newDoor(nil, log), people: system{}, asked: &asked{of: map[int][]time.Time{}},
		times: times{headerTime, bodyTime, writeTime, idleTime}, now: time.Now,
	}
}

type connKey struct{}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(s.cfg.Path)
	if err != nil {
		return fmt.Errorf("open the local socket: %w", err)
	}
	return s.serve(ctx, l)
}

func (s *Server) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: s.times.header, ReadTimeout: s.times.body, IdleTimeout: s.times.idle, MaxHeaderBytes: maxHeaders,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if g, ok := c.(*guest); ok {
				return context.WithValue(ctx, connKey{}, g.peer)
			}
			return ctx
		},
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	s.door.Listener = l
	err := srv.Serve(s.door)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the local socket: %w", err)
	}
	return nil
}

// caller is who asks, and what that person may do.
type caller struct {
	peercred.Peer
	user string
	role onboard.Role
}

func (c *caller) actor() string { return command.ActorLocal + "/" + c.user }

// who tells who asks. The person is fixed by the connection; the role is what the config
// says now.
func (s *Server) who(r *http.Request) (caller, bool) {
	p, ok := r.Context().Value(connKey{}).(peercred.Peer)
	if !ok {
		return caller{}, false
	}
	a := s.cfg.Access()
	return caller{Peer: p, user: s.people.name(p.UID), role: a.role(s.people, p)}, true
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range []struct {
		pattern string
		need    onboard.Role
		do      func(a *answer, r *http.Request, c caller) error
	}{
		{"GET /v1/state", onboard.RoleViewer, s.state},
		{"GET /v1/kinds", onboard.RoleNone, s.kinds},
		{"GET /v1/commands", onboard.RoleViewer, s.recent},
		{"POST /v1/commands", onboard.RoleOperator, s.give},
		{"GET /v1/commands/{id}", onboard.RoleViewer, s.command},
		{"POST /v1/commands/{id}/cancel", onboard.RoleOperator, s.cancel},
		{"POST /v1/challenge", onboard.RoleNone, s.challenge},
		{"POST /v1/signed", onboard.RoleNone, s.signed},
		{"GET /v1/twin", onboard.RoleViewer, s.keys},
		{"GET /v1/twin/keys/{key}", onboard.RoleViewer, s.key},
		{"PUT /v1/twin/keys/{key}", onboard.RoleOperator, s.set},
		{"DELETE /v1/twin/keys/{key}", onboard.RoleOperator, s.clear},
		{"GET /v1/twin/conflicts", onboard.RoleViewer, s.conflicts},
		{"GET /v1/twin/history", onboard.RoleViewer, s.history},
	} {
		mux.Handle(r.pattern, s.guarded(r.need, r.do))
	}
	for _, r := range updates.Routes() {
		mux.Handle(r.Pattern, s.guarded(r.Need, func(a *answer, req *http.Request, c caller) error { return s.ofUpdates(&r, a, req, c) }))
	}
	mux.Handle("/", s.guarded(onboard.RoleNone, func(_ *answer, r *http.Request, _ caller) error {
		return refuse(http.StatusNotFound, onboard.NotKnown, "%s %.100s is nothing that this board answers: is the program that asks of another release?", r.Method, r.URL.Path)
	}))
	return mux
}

// guarded lets in who has the role, and writes what was refused.
func (s *Server) guarded(need onboard.Role, do func(a *answer, r *http.Request, c caller) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{w: w, c: http.NewResponseController(w), patience: s.times.write}
		// Longer than any answer of one value may take to be made.
		_ = a.c.SetWriteDeadline(time.Now().Add(s.times.body + takeTime + s.times.write))
		most := int64(onboard.MaxBody)
		stream := r.URL.Path == onboard.BundlePath
		if stream {
			most = onboard.MaxBundle
			_ = a.c.EnableFullDuplex() // a refusal is heard while the rest is on its way
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		c, known := s.who(r)
		err := error(nil)
		switch {
		case !known:
			err = refuse(http.StatusForbidden, onboard.NotAllowed, "who calls is not known")
		case need == onboard.RoleOperator && c.role != onboard.RoleOperator, need == onboard.RoleViewer && c.role == onboard.RoleNone:
			err = s.notAllowed(c, need)
		default:
			err = do(a, r, c)
		}
		if err == nil {
			return
		}
		no := refusalOf(err)
		s.log.say(r.Context(), "local request refused", "user", c.user, "uid", c.UID, "pid", c.PID, "what", r.Method+" "+clip(r.URL.Path), "code", no.Code, "why", no.Text)
		a.refuse(no)
		if stream {
			a.drain(r.Body)
		}
	})
}

func (s *Server) notAllowed(c caller, need onboard.Role) error {
	r := refuse(http.StatusForbidden, onboard.NotAllowed, "%s (user id %d) is %s on this board, which wants %s", c.user, c.UID, roleWord(c.role), roleWord(need))
	r.Do = "an administrator adds the user to the group of local.operators in fulmard's config (fulmar-operators), and the user logs in anew; or give the command with --key and a key of role operator"
	return r
}

func roleWord(r onboard.Role) string {
	switch r {
	case onboard.RoleOperator:
		return "an operator"
	case onboard.RoleViewer:
		return "a viewer"
	}
	return "a person without a role"
}

func (s *Server) state(a *answer, r *http.Request, c caller) error {
	st := s.cfg.State.State(r.Context())
	st.You = onboard.You{User: c.user, Role: c.role, Actor: c.actor()}
	if t := s.cfg.Twin(); t != nil {
		st.Version, _ = t.Look()
		st.Conflicts = len(t.Conflicts())
	}
	return a.json(st)
}

// ofUpdates answers what is asked of updates.
func (s *Server) ofUpdates(r *updates.Route, a *answer, req *http.Request, c caller) error {
	call := updates.Call{Request: req, Actor: c.actor(), Allow: s.cfg.Allow, Log: s.cfg.Log, Patience: func(read, write time.Time) {
		if !read.IsZero() {
			_ = a.c.SetReadDeadline(read)
		}
		if !write.IsZero() {
			_ = a.c.SetWriteDeadline(write)
		}
	}}
	if s.cfg.Updates != nil {
		call.Updates = s.cfg.Updates()
	}
	if call.Updates == nil {
		return refuse(http.StatusServiceUnavailable, onboard.NotReady, "no part for updates runs on this board")
	}
	v, err := r.Do(&call)
	if err != nil {
		return err
	}
	return a.json(v)
}
