// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fulmar/cmd/fulmar/here"
)

// dialTimeout bounds one name and one connection.
const dialTimeout = 8 * time.Second

// launcher is where the package puts it.
const launcher = "usr/lib/fulmar/fulmar-launch"

// config tells whether fulmard takes its config.
func config(ctx context.Context, m *machine) []Line {
	if m.err != nil {
		do := "mend it; fulmard config check " + m.path + " tells whether it is good. fulmard goes on with the last good one"
		if _, err := m.sys.find("fulmard"); err != nil {
			return []Line{bad("config", "sudo apt install ./fulmar-agent_VERSION_ARCH.deb", "fulmard is not installed on this machine")}
		}
		if strings.Contains(m.err.Error(), "permission denied") {
			return []Line{warn("config", "sudo fulmar doctor", "%s may not be read by this user, so its keys are taken for the defaults here", m.path)}
		}
		return []Line{bad("config", do, "%s", oneLine(strings.TrimPrefix(m.err.Error(), "fulmard: ")))}
	}
	say := m.path
	if n := len(m.shown.Files) - 1; n > 0 {
		say += fmt.Sprintf(" with %d more in %s", n, filepath.Base(strings.TrimSuffix(m.path, filepath.Ext(m.path))+".d"))
	}
	c := &m.shown.Config
	switch {
	case c.Broker.Address != "":
		return []Line{good("config", "%s; its broker is %s", say, c.Broker.Address)}
	case c.Fleet.Address == "":
		return []Line{warn("config", "sudo fulmar enrol", "%s is good, and names no fleet yet", say)}
	}
	return []Line{good("config", "%s; its fleet is %s", say, c.Fleet.Address)}
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// slot tells which version runs, as the launcher knows it.
func slot(ctx context.Context, m *machine) []Line {
	if !m.root.Exists(launcher) {
		return nil // not from a package
	}
	out, err := m.sys.run(ctx, m.root.Path(launcher), "status", "--json")
	var s struct {
		Current  string `json:"current"`
		Trial    bool   `json:"trial"`
		Tries    int    `json:"tries"`
		MaxTries int    `json:"max_tries"`
		Fall     *struct {
			From   string `json:"from"`
			To     string `json:"to"`
			Reason string `json:"reason"`
		} `json:"fall"`
		Slots []struct {
			ID      string `json:"id"`
			Version string `json:"version"`
			Origin  string `json:"origin"`
			Whole   bool   `json:"whole"`
			Why     string `json:"why"`
		} `json:"slots"`
		Note string `json:"note"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		return []Line{bad("slot", "sudo apt install --reinstall fulmar-agent brings a version anew", "fulmar-launch status: %s", oneLine(err.Error()))}
	}
	var lines []Line
	for _, x := range s.Slots {
		switch {
		case x.ID == s.Current && !x.Whole:
			lines = append(lines, bad("slot", "sudo apt install --reinstall fulmar-agent", "version %s (%s) is not whole: %s", x.Version, x.Origin, x.Why))
		case x.ID == s.Current && s.Trial:
			lines = append(lines, good("slot", "version %s (%s) on trial, start %d of %d; it is kept after a minute of work", x.Version, x.Origin, s.Tries, s.MaxTries))
		case x.ID == s.Current:
			lines = append(lines, good("slot", "version %s (%s), confirmed", x.Version, x.Origin))
		}
	}
	if lines == nil {
		lines = append(lines, bad("slot", "sudo apt install --reinstall fulmar-agent", "no version is chosen; the launcher starts what the package brought"))
	}
	if f := s.Fall; f != nil {
		lines = append(lines, warn("slot", "journalctl -u fulmard tells how the newer one failed", "went back from %s to %s: %s", f.From, f.To, f.Reason))
	}
	if s.Note != "" {
		lines = append(lines, warn("slot", "nothing: it is written anew", "%s", s.Note))
	}
	return lines
}

// units tells how systemd sees fulmar's units.
func units(ctx context.Context, m *machine) (out []Line) {
	systemctl, err := m.sys.find("systemctl")
	if err != nil {
		return []Line{warn("units", "see to it yourself that fulmard and fulmar-infer are started, and started again", "no systemd here")}
	}
	names := []string{"fulmard.service", "fulmar-infer.socket", "fulmar-infer.service"}
	text, err := m.sys.run(ctx, systemctl, append([]string{"show", "--no-pager", "--property=Id,LoadState,ActiveState,SubState,NRestarts,Result,ExecMainStatus,UnitFileState"}, names...)...)
	if err != nil {
		return []Line{warn("units", "see to it yourself that fulmard and fulmar-infer are started, and started again", "systemd does not answer: %s", oneLine(err.Error()))}
	}
	var fine []string
	for block := range strings.SplitSeq(text, "\n\n") {
		p := map[string]string{}
		for line := range strings.SplitSeq(block, "\n") {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				p[k] = v
			}
		}
		if p["Id"] == "" {
			continue
		}
		if l, ok := unit(p, m.shown.Config.Infer.Mode); ok {
			out = append(out, l)
		} else {
			fine = append(fine, strings.TrimSuffix(p["Id"], ".service")+" "+p["SubState"])
		}
	}
	if fine == nil && out == nil {
		return []Line{warn("units", "systemctl status fulmard", "systemd tells nothing of fulmar's units")}
	}
	if fine != nil {
		out = append(out, good("units", "%s", strings.Join(fine, ", ")))
	}
	return out
}

// unit is the line of a unit that is not as it should be.
func unit(p map[string]string, mode string) (Line, bool) {
	id := p["Id"]
	name := strings.TrimSuffix(id, ".service")
	log := "journalctl -u " + name + " -n 50"
	switch {
	case p["LoadState"] == "not-found":
		return bad("units", "sudo apt install --reinstall fulmar-agent", "%s is not there", id), true
	case p["LoadState"] == "masked" || p["UnitFileState"] == "masked":
		return warn("units", "sudo systemctl unmask "+id, "%s is masked", id), true
	case p["ActiveState"] == "failed" || p["SubState"] == "auto-restart":
		return bad("units", log, "%s failed (%s, exit %s), started again %s times", name, p["Result"], p["ExecMainStatus"], p["NRestarts"]), true
	case id == "fulmar-infer.service" && p["ActiveState"] == "inactive": // the socket starts it
		return Line{}, false
	case p["ActiveState"] != "active" && p["ActiveState"] != "activating":
		if id == "fulmar-infer.socket" && mode != "unit" && mode != "" {
			return Line{}, false
		}
		return bad("units", "sudo systemctl enable --now "+id, "%s is %s", name, p["ActiveState"]), true
	case p["UnitFileState"] == "disabled" && id != "fulmar-infer.service":
		return warn("units", "sudo systemctl enable "+id, "%s runs, and will not after the next boot", name), true
	case p["NRestarts"] != "" && p["NRestarts"] != "0":
		return warn("units", log, "%s runs, and was started again %s times", name, p["NRestarts"]), true
	}
	return Line{}, false
}

// network tells whether the fleet, or the broker, can be reached.
func network(ctx context.Context, m *machine) []Line {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c := &m.shown.Config
	address := c.Fleet.Address
	if c.Broker.Address != "" {
		address = c.Broker.Address
	}
	if address == "" {
		return nil // told by config
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	const waits = "records are kept meanwhile; "
	begin := time.Now()
	if net.ParseIP(host) == nil {
		if _, err := m.sys.lookup(ctx, host); err != nil {
			return []Line{bad("network", waits+"resolvectl status tells which name servers are asked", "%s is not found: %s", host, innermost(err))}
		}
	}
	found := time.Since(begin)
	if err := m.sys.dial(ctx, address); err != nil {
		return []Line{bad("network", waits+"is the fleet on, and is the port open between here and there?", "%s does not answer: %s", address, innermost(err))}
	}
	return []Line{good("network", "%s answers (name %d ms, connection %d ms)", address, found.Milliseconds(), (time.Since(begin) - found).Milliseconds())}
}

func innermost(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + dialTimeout.String()
	case errors.As(err, &dns):
		return dns.Err
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// fleet tells what fulmard says of its identity and its link.
func fleet(ctx context.Context, m *machine) (out []Line) {
	c := &m.shown.Config
	h, counts, err := m.sys.health(ctx, c)
	switch {
	case errors.Is(err, here.ErrOff):
		return []Line{warn("fulmard", "take status.listen: off out of the config to see more here", "cannot be asked: %v", err)}
	case errors.Is(err, os.ErrPermission):
		return []Line{warn("fulmard", "sudo fulmar doctor", "its status may not be asked by this user")}
	case err != nil:
		return []Line{bad("fulmard", "sudo systemctl start fulmard; journalctl -u fulmard -n 50", "does not answer: %s", innermost(err))}
	}
	if i := h.Identity; i != nil {
		key := map[string]string{"tpm": "key in the TPM", "software": "key in a file, which can be copied"}[i.Key]
		switch i.State {
		case here.StateEnrolled:
			out = append(out, good("identity", "enrolled, %s", key))
		case here.StateApproval:
			out = append(out, warn("identity", "compare the fingerprint and approve it: fulmar board approve, or the fleet's page", "waits for a person; its fingerprint is %s", i.Fingerprint))
		case here.StateEnrolling:
			do := "sudo fulmar enrol"
			if c.Fleet.Address != "" && i.Refusal == "" {
				do = "it goes on trying; if that lasts: sudo fulmar enrol"
			}
			out = append(out, warn("identity", do, "not enrolled"))
		default:
			out = append(out, bad("identity", "fulmar tpm info, and dmesg | grep -i tpm", "%s: the board's key cannot be used", i.State))
		}
	}
	if h.Link == "up" {
		out = append(out, good("link", "up; %.0f records acknowledged, %.0f wait", counts["fulmar_link_acked_total"], counts["fulmar_spool_outstanding_records"]))
	} else if h.Identity == nil || h.Identity.State == here.StateEnrolled {
		out = append(out, warn("link", "the cause stands below; records are kept meanwhile", "%s; %.0f records wait", h.Link, counts["fulmar_spool_outstanding_records"]))
	}
	for _, cause := range h.Causes {
		out = append(out, warn("fulmard", "", "%s", oneLine(cause)))
	}
	return out
}

// models asks the worker's own doctor: it is linked with the engines.
func models(ctx context.Context, m *machine) (out []Line) {
	c := &m.shown.Config
	if c.Infer.Mode == "off" {
		return []Line{good("models", "none are run: infer.mode is off")}
	}
	path, err := m.findInfer()
	if err != nil {
		return []Line{bad("models", "install the package fulmar-agent, which brings it", "fulmar-infer is neither beside this program nor in PATH")}
	}
	var args []string
	if c.Infer.Library != "" {
		args = append(args, "--ort", c.Infer.Library)
	}
	if c.Infer.TensorRT != "" {
		args = append(args, "--trt", c.Infer.TensorRT)
	}
	text, err := m.sys.run(ctx, path, append(args, "doctor", "--json", "--cache", filepath.Join(c.Data, "engines"))...)
	var d struct {
		OK       bool   `json:"ok"`
		Choice   string `json:"choice"`
		Findings []struct {
			What   string `json:"what"`
			State  string `json:"state"`
			Value  string `json:"value"`
			Advice string `json:"advice"`
		} `json:"findings"`
	}
	if jerr := json.Unmarshal([]byte(text), &d); jerr != nil || d.Choice == "" {
		if err == nil {
			err = errors.New("said nothing that can be read")
		}
		return []Line{bad("models", "fulmar-infer doctor tells more", "fulmar-infer doctor: %s", oneLine(err.Error()))}
	}
	for _, f := range d.Findings {
		if f.What == "L4T" {
			continue // told by board
		}
		l := Line{"models", Good, f.What + ": " + oneLine(f.Value), f.Advice}
		if f.State != "ok" {
			l.State = Warning // models run on something else then
		}
		out = append(out, l)
	}
	if d.OK {
		return append(out, good("models", "%s", d.Choice))
	}
	return append(out, bad("models", "the first of the lines above that is no good", "%s", d.Choice))
}

// findInfer looks beside this program, then in PATH.
func (m *machine) findInfer() (string, error) {
	if self, err := os.Executable(); err == nil {
		if path, err := m.sys.find(filepath.Join(filepath.Dir(self), "fulmar-infer")); err == nil {
			return path, nil
		}
	}
	return m.sys.find("fulmar-infer")
}
