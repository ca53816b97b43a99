// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
)

// minSqueezed is from how many bytes on an answer is compressed: less fits in the first
// packet as it is.
const minSqueezed = 1 << 10

// squeezed compresses a view for a browser that takes gzip, and gives back what is to be
// sent. The length of a compressed answer tells how well its parts repeat each other, so
// an answer is compressed only where no secret stands in it: views that are looked at with
// GET. What a form answers may show a one-time password, a token or the key of a second
// factor beside what was typed; it goes out as it is, as do log-in, password and second
// factor. No view holds the session, and nothing like a form's token: forms are held to
// their origin by headers.
func squeezed(w http.ResponseWriter, r *http.Request, page []byte) []byte {
	w.Header().Add("Vary", "Accept-Encoding")
	if len(page) < minSqueezed || !takesGzip(r.Header.Get("Accept-Encoding")) {
		return page
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed) // a page of a tick's age is not worth more of a small server
	if err != nil {
		return page
	}
	if _, err := z.Write(page); err != nil {
		return page
	}
	if err := z.Close(); err != nil {
		return page
	}
	w.Header().Set("Content-Encoding", "gzip")
	return b.Bytes()
}

// takesGzip reads Accept-Encoding: gzip is named and not with a weight of 0.
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimSpace(params), "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), "q") {
			return true
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		return err == nil && q > 0
	}
	return false
}
