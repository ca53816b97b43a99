// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/trust"
)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func pemOf(t testing.TB, k ed25519.PrivateKey) []byte {
	t.Helper()
	b, err := trust.PublicPEM(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var start = time.Date(2026, 11, 26, 12, 0, 0, 123e6, time.UTC)

// export gives a file of n rows, with a head after row 3 and one at the end, and the
// heads after each row.
func export(t testing.TB, k ed25519.PrivateKey, n int, who string) (string, []Head) {
	t.Helper()
	var b bytes.Buffer
	tip := Head{Hash: make([]byte, 32)}
	w, err := NewWriter(&b, tip)
	if err != nil {
		t.Fatal(err)
	}
	all := []Head{tip}
	for i := range n {
		e := Entry{Seq: int64(i + 1), At: start.Add(time.Duration(i) * time.Second), Who: who, Tenant: "default", Board: fmt.Sprint("b", i), What: "revoke", Why: "a \"reason\" <&>"}
		e.Hash = e.Sum(tip.Hash)
		if tip, err = tip.Next(&e); err != nil {
			t.Fatal(err)
		}
		all = append(all, tip)
		if err := w.Row(&e); err != nil {
			t.Fatal(err)
		}
		if i == 2 || i == n-1 {
			s, err := Sign(k, tip, start)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Head(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.String(), all
}

func TestWhole(t *testing.T) {
	t.Parallel()
	text, heads := export(t, key(1), 5, "m.kern")
	for _, noted := range append(slices.Clone(heads), Head{}) {
		n := 0
		r, err := Verify(strings.NewReader(text), pemOf(t, key(1)), noted, func(e *Entry) { n++ })
		if err != nil {
			t.Fatal(noted.Seq, err)
		}
		if n != 5 || r.First != 1 || r.Last != 5 || r.Heads != 2 || !r.Since.Equal(start) || len(r.Keys) != 1 || !r.Tip.At.Equal(start.Truncate(time.Second)) {
			t.Errorf("%+v, %d rows", r, n)
		}
	}
}

// TestTampered: every way in which a file is changed is found, and told as what it is.
func TestTampered(t *testing.T) {
	t.Parallel()
	text, heads := export(t, key(1), 5, "m.kern")
	other, _ := export(t, key(1), 5, "nobody")
	forged, _ := export(t, key(2), 5, "m.kern")
	short, _ := export(t, key(1), 3, "m.kern")
	rows := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n") // base, 1, 2, 3, head, 4, 5, head
	rows[7] += "\n"
	with := func(order ...int) string {
		var b strings.Builder
		for _, i := range order {
			b.WriteString(rows[i])
		}
		return b.String()
	}
	foreign := strings.SplitAfter(other, "\n")
	for name, c := range map[string]struct {
		text string
		says string
	}{
		"a word changed":         {strings.Replace(text, `"board":"b1"`, `"board":"b9"`, 1), "row 2 is not what was written"},
		"a time changed":         {strings.Replace(text, "12:00:03", "12:00:04", 1), "row 4 is not what was written"},
		"a row removed":          {with(0, 1, 3, 4, 5, 6, 7), "row 3 follows row 1"},
		"the first removed":      {with(0, 2, 3, 4, 5, 6, 7), "row 2 follows row 0"},
		"two reordered":          {with(0, 2, 1, 3, 4, 5, 6, 7), "row 2 follows row 0"},
		"a row twice":            {with(0, 1, 1, 2, 3, 4, 5, 6, 7), "row 1 follows row 1"},
		"truncated after a row":  {with(0, 1, 2, 3, 4, 5), "ends at row 4 without a signed head"},
		"truncated in a row":     {text[:len(text)-700], ""},
		"no head":                {with(0, 1, 2, 3, 5, 6), "without a signed head"},
		"an old head at the end": {with(0, 1, 2, 3, 5, 6, 4), "the signed head is of row 3"},
		"a head of another log":  {with(0, 1, 2, 3, 4, 5, 6) + foreign[7], "the signed head is of row 5"},
		"a head changed":         {strings.Replace(text, `"payload":"ey`, `"payload":"eY`, 1), "not signed by key"},
		"all made anew":          {forged, "not signed by key"},
		"a base that is none":    {strings.Replace(text, `"seq":0`, `"seq":4`, 1), "row 1 follows row 4"},
		"cut at a head":          {short, "ends at row 3 and row 5 was noted"},
		"another log, same key":  {other, "row 5 is not the one that was noted"},
		"nothing":                {"", "empty"},
		"a line of something":    {with(0, 1) + "{}\n" + with(2), "neither a row nor a head"},
		"two on a line":          {strings.Replace(text, "}}\n", "}}{}\n", 1), "not a line"},
		"an unknown field":       {strings.Replace(text, `{"row":{`, `{"row":{"x":1,`, 1), "not a line"},
		"a long line":            {with(0, 1) + strings.Repeat("x", maxLine+1), "a line of over"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Verify(strings.NewReader(c.text), pemOf(t, key(1)), heads[5], nil)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, wants %q", err, c.says)
			}
			if !errors.Is(err, ErrBroken) && !errors.Is(err, trust.ErrMalformed) {
				t.Errorf("%v is neither broken nor malformed", err)
			}
		})
	}
	// Without anything known from elsewhere, a log made anew is whole; its key tells.
	r, err := Verify(strings.NewReader(forged), nil, Head{}, nil)
	if id, _ := trust.KeyID(key(1).Public()); err != nil || r.Tip.KeyID == id {
		t.Errorf("%+v %v", r, err)
	}
}

// TestOtherEnvelope: what the key signed as something else is no head.
func TestOtherEnvelope(t *testing.T) {
	t.Parallel()
	e, err := trust.NewEnvelope(trust.TypeTime, []byte(`{"v":1,"seq":5,"hash":"`+strings.Repeat("00", 32)+`","at":"2026-11-26T12:00:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Sign(key(1)); err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(b, pemOf(t, key(1))); err == nil {
		t.Error("a signed time is taken as a head")
	}
}

func FuzzVerify(f *testing.F) {
	text, heads := export(f, key(1), 4, "m.kern")
	f.Add([]byte(text))
	f.Add([]byte(text[:200]))
	f.Add([]byte(`{"fulmar_audit":1,"base":{"seq":0,"hash":""}}`))
	pub := pemOf(f, key(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		r, err := Verify(bytes.NewReader(b), pub, heads[4], func(*Entry) { n++ })
		if err == nil && (r.Last != 4 || n > 4 || !r.Tip.Equal(heads[4])) {
			t.Errorf("%q is taken: %+v", b, r)
		}
	})
}
