// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/cmd/fulmar/here"
	"fulmar/internal/jointoken"
	"fulmar/schema"
)

// DefaultTimeout is how long a board may take from the first look to the first record at
// the fleet before enrol says what it waits for and ends. fulmard goes on by itself.
const DefaultTimeout = 60 * time.Second

// Options are what enrol is told. Zero values are the defaults of a packaged board.
type Options struct {
	Token string    // "" asks at the terminal, "-" reads Stdin
	Board string    // wished name; "" is the config's, else the machine's
	Fleet string    // host:port; "" has the token say
	Pin   string    // what fulmar-fleet pin printed, 64 hex digits; without a token a person lets the board in
	Again bool      // also where the board is enrolled
	JSON  bool      // one document on stdout, and no talk
	Stdin io.Reader // os.Stdin if nil

	Config    string        // /etc/fulmar/fulmard.yaml
	TokenFile string        // join-token beside the config
	Fulmard   string        // fulmard of PATH
	Unit      string        // fulmard.service
	Timeout   time.Duration // DefaultTimeout
}

func (o Options) withDefaults() Options {
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&o.Config, "/etc/fulmar/fulmard.yaml")
	def(&o.TokenFile, filepath.Join(filepath.Dir(o.Config), "join-token"))
	def(&o.Fulmard, "fulmard")
	def(&o.Unit, "fulmard.service")
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return o
}

// run is one enrolment.
type run struct {
	*report
	o       Options
	program string // path of fulmard
	shown   *here.Shown
	data    string
	was     *here.Identity // of an earlier enrolment
	undo    []func() error
}

// Run enrols this board. What is true at the end goes to stdout, the steps to stderr. Its
// error says what happened, because of what, and what to do: a [*Failure], or one of
// wrong usage.
func Run(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	r := &run{report: newReport(o.JSON, stdout, stderr), o: o.withDefaults()}
	return r.end(r.enrol(ctx))
}

func (r *run) enrol(ctx context.Context) error {
	if r.o.Board != "" {
		if err := schema.CheckBoard(r.o.Board); err != nil {
			return fmt.Errorf("%w: --board: %w", ErrUsage, err)
		}
	}
	if err := r.step("fulmard", func() (string, error) { return r.installed(ctx) }); err != nil {
		return err
	}
	if err := r.step("config", func() (string, error) { return r.readable(ctx) }); err != nil {
		return err
	}
	if r.was != nil && !r.o.Again {
		return r.already(ctx)
	}
	if r.o.Board == "" && r.was == nil && r.shown.Config.Board == "" {
		if host, err := os.Hostname(); err == nil {
			r.o.Board = boardName(host)
		}
	}
	t, err := r.ticket(ctx)
	if err != nil {
		return err
	}
	if err := r.probe(ctx, t); err != nil {
		return err
	}
	if err := r.join(ctx, t); err != nil {
		if r.was == nil && !errors.Is(err, ErrRefused) {
			return err // a new board goes on trying by itself
		}
		return errors.Join(err, r.back(ctx))
	}
	return nil
}

// boardName makes a board's name out of a machine's: what a name may not have becomes a
// dash. "" is a machine whose name has nothing in it that a board's may begin with.
func boardName(host string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			return c
		}
		return '-'
	}, host)
	name = strings.Trim(name[:min(len(name), schema.MaxName)], "-_.")
	if schema.CheckBoard(name) != nil {
		return ""
	}
	return name
}

// installed looks for fulmard.
func (r *run) installed(ctx context.Context) (string, error) {
	path, err := exec.LookPath(r.o.Fulmard)
	if err == nil {
		var version string
		if version, err = here.Run(ctx, path, "version"); err == nil {
			r.program = path
			first, _, _ := strings.Cut(version, "\n")
			return strings.TrimPrefix(first, "fulmard ") + ", " + path, nil
		}
	}
	return "", &Failure{
		What: "fulmard does not run on this machine; nothing was changed", Because: err.Error(),
		Do: "install the package: sudo apt install ./fulmar-agent_VERSION_ARCH.deb; fulmar enrol is typed on the board itself",
	}
}

// readable reads the config, and what an earlier enrolment left.
func (r *run) readable(ctx context.Context) (string, error) {
	const as = "run it as root: sudo fulmar enrol"
	dir := filepath.Dir(r.o.Config)
	if err := unix.Access(dir, unix.W_OK); errors.Is(err, unix.EACCES) {
		return "", &Failure{What: "the config in " + dir + " cannot be written; nothing was changed", Because: "this user may not", Do: as}
	}
	var err error
	if r.shown, err = here.Show(ctx, r.program, r.o.Config); err != nil {
		return "", &Failure{What: "the config cannot be used; nothing was changed", Because: strings.TrimPrefix(err.Error(), "fulmard: "), Do: "mend it and type fulmar enrol again; fulmard config check tells whether it is good"}
	}
	c := &r.shown.Config
	r.data = c.Data
	if c.Broker.Address != "" {
		return "", &Failure{
			What: "this board is not enrolled with a fleet by intention; nothing was changed", Because: "broker.address in " + r.from("broker.address") + " has it talk to " + c.Broker.Address,
			Do: "take broker.address out to join a fleet",
		}
	}
	r.was, err = here.ReadIdentity(r.data)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", &Failure{What: "the identity in " + r.data + " cannot be read; nothing was changed", Because: "this user may not", Do: as}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		r.note("What is kept of an earlier enrolment is of no use: %v", err) // fulmard enrols anew then
	}
	say := r.o.Config
	if n := len(r.shown.Files) - 1; n > 0 {
		say += fmt.Sprintf(" and %d in %s", n, filepath.Base(dropInDir(r.o.Config)))
	}
	return say + " is good", nil
}

// from is the file that gives a key, or the config.
func (r *run) from(key string) string {
	if f := r.shown.From[key]; f != "" {
		return f
	}
	return r.o.Config
}

// already says that there is nothing to do, unless something else was asked for.
func (r *run) already(ctx context.Context) error {
	c := &r.shown.Config
	now := "this board is " + r.was.Board + " of " + c.Fleet.Address
	conflict := func(what, is, asked string) error {
		return &Failure{What: "already enrolled: " + now + "; nothing was changed", Because: what + " is " + is + ", not " + asked, Do: "fulmar enrol --again if it shall be another"}
	}
	if t, err := jointoken.Parse(r.o.Token); err == nil && t.Address != "" && r.o.Fleet == "" {
		r.o.Fleet = t.Address
	}
	switch {
	case r.o.Board != "" && r.o.Board != r.was.Board:
		return conflict("its name", r.was.Board, r.o.Board)
	case r.o.Fleet != "" && r.o.Fleet != c.Fleet.Address:
		return conflict("its fleet", c.Fleet.Address, r.o.Fleet)
	}
	r.Already, r.Board, r.Tenant, r.Fleet = true, r.was.Board, r.was.Tenant, c.Fleet.Address
	link := "its fulmard does not answer"
	if s, err := here.Ask(c); err == nil {
		if h, err := s.Health(ctx); err == nil {
			link = "its link is " + h.Link
		}
	} else if errors.Is(err, here.ErrOff) {
		link = err.Error()
	}
	r.say("Enrolled already: %s, and %s. Nothing was changed.\nNext: fulmar doctor   or, to enrol anew with the same key, fulmar enrol --again", now, link)
	return nil
}

// probe looks at the fleet before anything is changed.
func (r *run) probe(ctx context.Context, t *ticket) error {
	if r.was != nil && r.o.Board != "" && r.o.Board != r.was.Board {
		return &Failure{
			What: "not enrolled as " + r.o.Board + "; nothing was changed", Because: "this disk holds the records of " + r.was.Board + ", which would be told as another board's",
			Do: "fulmard wipe --yes " + r.was.Board + " with fulmard stopped, which destroys them; then fulmar enrol",
		}
	}
	p := &probe{address: t.address, pin: t.pin}
	if err := r.step("address", func() (string, error) { return p.resolve(ctx) }); err != nil {
		return err
	}
	return r.step("fleet", func() (string, error) {
		c, err := p.connect(ctx)
		if err != nil {
			return "", err
		}
		defer c.Close() //nolint:errcheck // nothing was sent
		return p.judge(ctx, c)
	})
}

// join changes the board and looks on until the fleet has its first record.
func (r *run) join(ctx context.Context, t *ticket) error {
	r.Fleet = t.address
	if err := r.step("written", func() (string, error) { return r.write(ctx, t) }); err != nil {
		return err
	}
	w, err := r.watch()
	if err != nil {
		return err
	}
	restart := func() (string, error) { return r.restart(ctx) }
	if err := r.step("started", restart); err != nil {
		return err
	}
	if err := w.until(ctx, r.began.Add(r.o.Timeout), t); err != nil {
		return err
	}
	r.say("This board is %s of the fleet at %s.  https://%s/boards/%s", r.Board, r.Fleet, r.Fleet, r.Board)
	r.say("Enrolled in %s. Next: fulmar doctor", short(r.took()))
	return nil
}

// back takes back what was changed: a fleet that said no shall not be asked for ever, and
// a board that was enrolled is not left worse off than it was.
func (r *run) back(ctx context.Context) error {
	if len(r.undo) == 0 {
		return nil
	}
	var errs []error
	for i := len(r.undo) - 1; i >= 0; i-- {
		errs = append(errs, r.undo[i]())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("and what was before could not be put back: %w", err)
	}
	r.note("What was before is put back.")
	if _, err := r.restart(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("and fulmard could not be started with what was before: %w", err)
	}
	return nil
}
