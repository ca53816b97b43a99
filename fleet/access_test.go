// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base32"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/entrance"

	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/registry/accounts/totp"
	"fulmar/schema/rest"
)

const longWord = "a much longer secret"

// raw does one request and gives its answer with what it set, following nothing.
func (p *person) raw(method, path, body string, head ...string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "text/html")
	for i := 0; i+1 < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	c := *p.http
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := c.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res, string(b)
}

// stranger is somebody with a fresh browser.
func (c *town) stranger(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := *c.http
	client.Jar = jar
	return &person{t, "https://" + c.HTTPSAddr(), &client}
}

func (p *person) cookie(name string) string {
	u, _ := url.Parse(p.base)
	for _, c := range p.http.Jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// The cookies of package entrance, as browsers see them.
const (
	cookieName  = "__Host-fulmar"
	knownCookie = "__Host-fulmar-known"
	stepCookie  = "__Host-fulmar-step"
)

// member makes a user with a settled password who is logged in.
func (c *town) member(t *testing.T, name string, role rest.Role) *person {
	t.Helper()
	once, err := c.reg.Accounts().AddUser(t.Context(), accounts.OnConsole(""), name, role)
	if err != nil {
		t.Fatal(err)
	}
	p := c.stranger(t)
	p.post("/login", url.Values{"user": {name}, "password": {once}})
	p.post("/password", url.Values{"old": {once}, "new": {longWord}, "again": {longWord}})
	if p.cookie(cookieName) == "" {
		t.Fatal("not logged in: ", name)
	}
	return p
}

// TestSecondFactorOnThePage walks through it as a browser does: set up, log in with
// code, log in with a recovery code, take it off.
func TestSecondFactorOnThePage(t *testing.T) {
	t.Parallel()
	c := serve(t)
	p := c.member(t, "kern", rest.Operator)
	elsewhere := c.stranger(t)
	elsewhere.post("/login", url.Values{"user": {"kern"}, "password": {longWord}})
	if !strings.Contains(elsewhere.get("/"), "kern") {
		t.Fatal("the second browser is not logged in")
	}
	page := p.post("/second-factor", url.Values{"do": {"begin"}})
	if !strings.Contains(page, `<svg class="qr"`) || !strings.Contains(page, "h1v1h-1z") {
		t.Error("no picture to scan")
	}
	var key string
	for _, m := range regexp.MustCompile(`<span>([A-Z2-7]{1,4})</span>`).FindAllStringSubmatch(page, -1) {
		key += m[1]
	}
	bin, err := base32.StdEncoding.DecodeString(key)
	if err != nil || len(bin) != 20 {
		t.Fatalf("key %q, %v", key, err)
	}
	if page = p.post("/second-factor", url.Values{"do": {"confirm"}, "code": {"12345"}}); !strings.Contains(page, "That code is not good") || strings.Contains(page, key[:4]+"</span>") {
		t.Error("a wrong code confirms, or the key is shown again")
	}
	page = p.post("/second-factor", url.Values{"do": {"confirm"}, "code": {totp.Code(bin, time.Now())}})
	codes := regexp.MustCompile(`[a-z2-7]{4}(?:-[a-z2-7]{4}){3}`).FindAllString(page, -1)
	if len(codes) != 10 {
		t.Fatalf("%d recovery codes", len(codes))
	}
	if !strings.Contains(p.get("/second-factor"), "10 recovery codes are left") {
		t.Error("the session that set it up ended, or counts wrong")
	}
	if res, _ := elsewhere.raw(http.MethodGet, "/", ""); res.StatusCode != http.StatusSeeOther {
		t.Error("another session outlives the second factor")
	}
	// The log-in: password, then code; the password alone is no session.
	old := elsewhere.cookie(cookieName) // of the session that has ended
	page = elsewhere.post("/login", url.Values{"user": {"kern"}, "password": {longWord}, "next": {"/detections"}})
	if !strings.Contains(page, `name="code"`) || !strings.Contains(page, `value="/detections"`) || elsewhere.cookie(cookieName) != old {
		t.Fatal("no code is asked for, or a session is given before")
	}
	if res, _ := elsewhere.raw(http.MethodGet, "/", ""); res.StatusCode != http.StatusSeeOther {
		t.Error("the password alone lets in")
	}
	if page = elsewhere.post("/login", url.Values{"code": {"000000"}, "next": {"/detections"}}); !strings.Contains(page, "That code is not good") || !strings.Contains(page, `name="code"`) {
		t.Error("a wrong code")
	}
	res, _ := elsewhere.raw(http.MethodPost, "/login", url.Values{"code": {totp.Code(bin, time.Now().Add(totp.Step))}, "next": {"/detections"}}.Encode())
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/detections" || elsewhere.cookie(stepCookie) != "" {
		t.Errorf("the right code: %d %s", res.StatusCode, res.Header.Get("Location"))
	}
	third := c.stranger(t)
	if page = third.post("/login", url.Values{"code": {codes[0]}}); !strings.Contains(page, "That took too long") {
		t.Error("a code without a password before it")
	}
	third.post("/login", url.Values{"user": {"kern"}, "password": {longWord}})
	third.post("/login", url.Values{"code": {codes[0]}})
	if third.cookie(cookieName) == "" {
		t.Error("a recovery code lets nobody in")
	}
	if page = p.post("/second-factor", url.Values{"do": {"off"}, "password": {longWord}, "code": {codes[0]}}); !strings.Contains(page, "That code is not good") {
		t.Error("a recovery code twice")
	}
	if page = p.post("/second-factor", url.Values{"do": {"off"}, "password": {longWord}, "code": {codes[1]}}); !strings.Contains(page, "Set it up") {
		t.Error("it does not come off")
	}
}

// TestDoor: the door's own routes hold against other sites, oversized forms, wrong
// methods and a session that somebody else chose.
func TestDoor(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.person(t)
	for _, path := range []string{"/login", "/password", "/second-factor", "/logout", "/theme"} {
		p := c.stranger(t)
		p.post("/login", url.Values{"user": {"admin"}, "password": {longWord}})
		before := p.cookie(cookieName)
		if before == "" {
			t.Fatal("not logged in")
		}
		for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
			res, _ := p.raw(http.MethodPost, path, "do=begin&theme=dark&user=admin&password=x", h[0], h[1])
			if res.StatusCode != http.StatusForbidden || len(res.Header.Values("Set-Cookie")) != 0 {
				t.Errorf("%s with %s %s: %d", path, h[0], h[1], res.StatusCode)
			}
		}
		if res, _ := p.raw(http.MethodPost, path, "x="+strings.Repeat("y", 1<<20), "Sec-Fetch-Site", "same-origin"); path != "/logout" && res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s with a form of 1 MiB: %d", path, res.StatusCode)
		}
		if res, _ := p.raw(http.MethodPut, path, ""); res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusUnauthorized {
			t.Errorf("PUT %s: %d", path, res.StatusCode)
		}
	}
	// Fixation: a session cookie that was there before the log-in is worth nothing after.
	p := c.stranger(t)
	u, _ := url.Parse(p.base)
	p.http.Jar.SetCookies(u, []*http.Cookie{{Name: cookieName, Value: strings.Repeat("ab", 32), Path: "/", Secure: true}})
	p.post("/login", url.Values{"user": {"admin"}, "password": {longWord}})
	first := p.cookie(cookieName)
	if first == "" || first == strings.Repeat("ab", 32) {
		t.Error("the session is the one that somebody else chose")
	}
	res, _ := p.raw(http.MethodPost, "/login", url.Values{"user": {"admin"}, "password": {longWord}}.Encode())
	if _, err := c.reg.Accounts().Session(t.Context(), first); err == nil {
		t.Error("the session before a new log-in goes on")
	}
	for _, line := range res.Header.Values("Set-Cookie") {
		ck, err := http.ParseSetCookie(line)
		if err != nil || !ck.Secure || !ck.HttpOnly || ck.SameSite != http.SameSiteStrictMode || ck.Path != "/" || ck.Domain != "" || !strings.HasPrefix(ck.Name, "__Host-") {
			t.Errorf("%s, %v", line, err)
		}
	}
	// The browser remembers the user, and nothing typed comes back as markup.
	if page := p.get("/logout"); strings.Contains(page, "Log in") {
		t.Error("a link logs out")
	}
	p.post("/logout", nil)
	if page := p.get("/login"); !strings.Contains(page, `value="admin"`) {
		t.Error("the user is not remembered")
	}
	p.http.Jar.SetCookies(u, []*http.Cookie{{Name: knownCookie, Value: `x.<script>alert(1)</script>`, Path: "/", Secure: true}})
	if _, page := p.raw(http.MethodGet, "/login", ""); strings.Contains(page, "<script>alert") {
		t.Error("a cookie becomes markup")
	}
	// An unknown user and a wrong password give one and the same page.
	a, x := c.stranger(t).raw(http.MethodPost, "/login", "user=admin&password=wrong+wrong+wrong")
	b, y := c.stranger(t).raw(http.MethodPost, "/login", "user=nobody&password=wrong+wrong+wrong")
	clock := regexp.MustCompile(`data-(at|clock)="[^"]*"|value="(admin|nobody)"`)
	if a.StatusCode != http.StatusUnauthorized || b.StatusCode != a.StatusCode || clock.ReplaceAllString(x, "") != clock.ReplaceAllString(y, "") {
		t.Errorf("%d and %d, or other words", a.StatusCode, b.StatusCode)
	}
}

// TestRoleIsFeltAtOnce: a live stream ends when its viewer's role changes, and what they
// may no longer do is refused; so for who has to set up a second factor.
func TestRoleIsFeltAtOnce(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.person(t) // another administrator
	p := c.member(t, "kern", rest.Admin)
	open := func() io.ReadCloser {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		t.Cleanup(cancel)
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/live?view=/", nil)
		res, err := p.http.Do(req)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(err, res.StatusCode)
		}
		return res.Body
	}
	stream := open()
	defer stream.Close()
	if res, _ := p.raw(http.MethodPost, "/boards/none/revoke", "why=x"); res.StatusCode == http.StatusForbidden {
		t.Error("an administrator may not decide")
	}
	if err := c.reg.Accounts().SetRole(t.Context(), accounts.OnConsole(""), "kern", rest.Viewer); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Error("the stream of another role goes on: ", err)
	}
	if res, _ := p.raw(http.MethodPost, "/boards/none/revoke", "why=x"); res.StatusCode != http.StatusForbidden {
		t.Errorf("a viewer decides: %d", res.StatusCode)
	}
	stream = open()
	defer stream.Close()
	if err := c.reg.Accounts().RequireTOTP(t.Context(), accounts.OnConsole(""), rest.Viewer); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Error("the stream goes on without a second factor: ", err)
	}
	if res, _ := p.raw(http.MethodGet, "/", ""); res.Header.Get("Location") != "/second-factor" {
		t.Error(res.StatusCode, res.Header)
	}
	req, _ := http.NewRequest(http.MethodGet, p.base+"/", nil)
	req.AddCookie(&http.Cookie{Name: cookieName, Value: p.cookie(cookieName)})
	if _, err := entrance.New(c.reg.Accounts()).Caller(req); err == nil {
		t.Error("the API opens without the second factor")
	}
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// TestNoSecretInTheLog runs everything that has a secret with a server that logs all it
// can, and looks for them in its log and in the audit log.
func TestNoSecretInTheLog(t *testing.T) {
	t.Parallel()
	log := new(lines)
	c := &town{dir: t.TempDir()}
	s, err := New(Config{Data: c.dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(pw string) { c.password = pw }, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	c.Server = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool(), MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	c.http = &http.Client{Transport: tr, Timeout: 20 * time.Second}
	secrets := map[string]string{"one-time password": c.password, "password": longWord}
	p := c.person(t)
	secrets["session"], secrets["browser's mark"] = p.cookie(cookieName), p.cookie(knownCookie)[:64]
	token, _, err := c.reg.Accounts().MakeToken(t.Context(), accounts.OnConsole(""), rest.TokenSpec{Name: "t", Rights: rest.Admin.Rights()})
	if err != nil {
		t.Fatal(err)
	}
	secrets["token"], secrets["wrong token"], secrets["typed as user"] = token, token[:52]+"0", "hunter2hunter2hunter2"
	c.get(t, "/api/v1/overview", token)
	c.get(t, "/api/v1/overview", token[:52]+"0")
	c.get(t, "/api/v1/nothing?token="+token, token)
	c.stranger(t).post("/login", url.Values{"user": {"hunter2hunter2hunter2"}, "password": {longWord}})
	var key string
	for _, m := range regexp.MustCompile(`<span>([A-Z2-7]{1,4})</span>`).FindAllStringSubmatch(p.post("/second-factor", url.Values{"do": {"begin"}}), -1) {
		key += m[1]
	}
	secrets["factor's key"] = key
	bin, _ := base32.StdEncoding.DecodeString(key)
	for i, code := range regexp.MustCompile(`[a-z2-7]{4}(?:-[a-z2-7]{4}){3}`).FindAllString(p.post("/second-factor", url.Values{"do": {"confirm"}, "code": {totp.Code(bin, time.Now())}}), 2) {
		secrets["recovery code "+string(rune('0'+i))] = code
	}
	if len(secrets) != 10 {
		t.Fatalf("only %d secrets came about", len(secrets))
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Data: c.dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer again.close() //nolint:errcheck // only read
	var audit bytes.Buffer
	if _, err := again.book.Export(t.Context(), &audit); err != nil {
		t.Fatal(err)
	}
	for what, secret := range secrets {
		if len(secret) < 10 || strings.Contains(log.b.String(), secret) {
			t.Errorf("the log tells the %s (%d characters)", what, len(secret))
		}
		if strings.Contains(audit.String(), secret) {
			t.Errorf("the audit log tells the %s", what)
		}
	}
	for _, word := range []string{`"log-in"`, `"log-in-refused"`, `"second-factor"`, `"set-password"`, `"api-token"`} {
		if !strings.Contains(audit.String(), word) {
			t.Errorf("the audit log lacks %s", word)
		}
	}
}
