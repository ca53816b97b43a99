// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"time"

	"fulmar/fleet/registry/idem"
	"fulmar/schema/rest"
)

// keepTimeout bounds the keeping of an answer after its request has ended.
const keepTimeout = 5 * time.Second

// once does a change; where it has an Idempotency-Key, once in a day: the second time
// it is answered as the first time.
func (d *Door) once(w http.ResponseWriter, r *http.Request, route Route, body []byte, next http.HandlerFunc) {
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		next(w, r)
		return
	}
	key, err := d.keyOf(r, keys, body)
	if err != nil {
		d.Fail(w, r, err)
		return
	}
	before, err := d.cfg.Keys.Begin(r.Context(), key)
	if err != nil {
		d.Fail(w, r, err)
		return
	}
	if before != nil {
		again(w, before)
		return
	}
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	ended := false
	// The client may have gone: its next try has to find the answer all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), route.Timeout+keepTimeout)
	defer cancel()
	defer func() {
		if !ended { // a panic: how far it came is not known
			_ = d.cfg.Keys.End(ctx, key, idem.Answer{Status: http.StatusInternalServerError})
		}
	}()
	next(rec, r)
	ended = true
	if rec.status < 200 || rec.status > 299 { // nothing was changed
		err = d.cfg.Keys.Drop(ctx, key)
	} else {
		err = d.cfg.Keys.End(ctx, key, rec.answer(route))
	}
	if err != nil {
		d.cfg.Log.Error("answer not kept for its Idempotency-Key", "request_id", requestID(ctx), "route", route.ID, "error", err.Error())
	}
}

// keyOf checks the key and makes the name of the request.
func (d *Door) keyOf(r *http.Request, keys []string, body []byte) (idem.Key, error) {
	if d.cfg.Keys == nil || len(keys) > 1 || len(keys[0]) == 0 || len(keys[0]) > idem.MaxKey {
		return idem.Key{}, Wrong("Idempotency-Key", "takes one key of 1 to 128 bytes")
	}
	by := callerOf(r.Context())
	h := sha256.New()
	for _, s := range []string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("If-Match"), string(body)} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return idem.Key{Tenant: by.Tenant, Who: by.Who, Key: keys[0], Request: [32]byte(h.Sum(nil))}, nil
}

// kept are the headers that are kept with an answer.
func kept() []string { return []string{"Content-Type", "ETag", "Location"} }

// again answers as before.
func again(w http.ResponseWriter, a *idem.Answer) {
	var head map[string]string
	if json.Unmarshal([]byte(a.Head), &head) == nil {
		for _, k := range kept() {
			if v := head[k]; v != "" {
				w.Header().Set(k, v)
			}
		}
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // a client that has gone is no error of ours
}

// recorder keeps what is answered, up to the bound of package idem.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b[:min(len(b), max(0, idem.MaxAnswer+1-r.body.Len()))])
	return r.ResponseWriter.Write(b)
}

func (r *recorder) answer(route Route) idem.Answer {
	head := map[string]string{}
	for _, k := range kept() {
		if v := r.Header().Get(k); v != "" {
			head[k] = v
		}
	}
	text, _ := json.Marshal(head) // strings always do
	a := idem.Answer{Status: r.status, Head: string(text), Body: append([]byte{}, r.body.Bytes()...)}
	if route.Secret {
		a.Body = nil
	}
	return a
}

// Version reads an If-Match of a thing with a version: -1 for *.
func Version(ifMatch string) (int64, error) {
	switch v, ok := parseTag(ifMatch); {
	case ifMatch == "":
		return 0, Fail(rest.CodeNoIfMatch, "")
	case ifMatch == "*":
		return -1, nil
	case !ok:
		return 0, Wrong("If-Match", `takes one strong ETag of this thing, such as "v3", or *`)
	default:
		return v, nil
	}
}
