// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestReceiverOfThePage runs the receiver that docs/alerts.md shows: it takes what is
// signed as we sign, and nothing else.
func TestReceiverOfThePage(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("python3 is not installed; it runs the receiver of docs/alerts.md")
	}
	page, err := os.ReadFile("../../../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(page)
	if code == nil {
		t.Fatal("docs/alerts.md shows no receiver")
	}
	secret := bytes.Repeat([]byte{7, 200}, 16)
	dir := t.TempDir()
	for name, text := range map[string][]byte{"receiver.py": code[1], "secret": []byte(secretPrefix + base64.StdEncoding.EncodeToString(secret) + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	_ = l.Close() // somebody could take the port meanwhile: then the receiver ends and the test fails
	cmd := exec.CommandContext(t.Context(), python, "receiver.py", strconv.Itoa(addr.Port))
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	body := []byte(`{"type":"alert.firing","subject":"alert/1","data":{"summary":"hall-4: 2 boards run hot"}}`)
	now := time.Now().Unix()
	for _, c := range []struct {
		what      string
		at        int64
		signature string
		want      int
	}{
		{"as we sign", now, sign(secret, "msg_1", now, body), http.StatusNoContent},
		{"one of two", now, "v1,AAAA " + sign(secret, "msg_1", now, body), http.StatusNoContent},
		{"another secret", now, sign([]byte("other"), "msg_1", now, body), http.StatusUnauthorized},
		{"another message", now, sign(secret, "msg_2", now, body), http.StatusUnauthorized},
		{"recorded", now - 1000, sign(secret, "msg_1", now-1000, body), http.StatusUnauthorized},
	} {
		if got := deliver(t, fmt.Sprint("http://", addr, "/"), c.at, c.signature, body); got != c.want {
			t.Errorf("%s: %d, wants %d", c.what, got, c.want)
		}
	}
}

// deliver posts, again until somebody listens.
func deliver(t *testing.T, url string, at int64, signature string, body []byte) int {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("webhook-id", "msg_1")
		r.Header.Set("webhook-timestamp", strconv.FormatInt(at, 10))
		r.Header.Set("webhook-signature", signature)
		res, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = res.Body.Close()
			return res.StatusCode
		}
		if time.Now().After(end) {
			t.Fatal("the receiver does not listen: ", err)
		}
	}
}
