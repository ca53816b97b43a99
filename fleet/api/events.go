// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/schema/rest"
)

const (
	// streamPace is the shortest time between two events of one stream: boards
	// that change in between are told together.
	streamPace = 500 * time.Millisecond
	// heartbeat keeps proxies from closing a quiet stream, and is when the
	// reader's right is checked again.
	heartbeat = 15 * time.Second
	// writeTimeout is how long a reader may be too slow to take an event.
	writeTimeout = 10 * time.Second
)

// stream is one reader of changes.
type stream struct {
	h     *Handler
	rc    *http.ResponseController
	w     http.ResponseWriter
	r     *http.Request
	by    access.Caller
	q     string
	sub   *sub
	shown map[string]bool // boards that match; nil: all do
}

func (h *Handler) mountEvents(d *door.Door) {
	d.Raw(door.Route{
		ID: "stream-events", Method: http.MethodGet, Path: "events", Tag: "boards", Summary: "Which boards changed, as they do",
		Right: rest.BoardsRead, Stream: true,
	}, func(op *huma.Operation) {
		text := &huma.Schema{Type: huma.TypeString}
		op.Description = "Server-sent events. reset: fetch everything anew. change: data is {\"boards\": [names]}, and with a query " +
			"{\"left\": [names]} of those that match no more. A reader that comes back with Last-Event-ID is told what changed meanwhile, " +
			"or reset where that is too long ago."
		op.Parameters = append(op.Parameters,
			&huma.Param{Name: "q", In: "query", Description: "Of which boards, as a query", Schema: text},
			&huma.Param{Name: "Last-Event-ID", In: "header", Description: "The id of the last event that was read", Schema: text})
		op.Responses["200"] = &huma.Response{Description: "Events until the reader leaves", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: text}}}
	}, h.events)
}

// events streams changes as server-sent events.
func (h *Handler) events(w http.ResponseWriter, r *http.Request, by access.Caller) error {
	v := r.URL.Query()
	for name, values := range v {
		if name != "q" || len(values) > 1 {
			return door.Wrong("query", "takes q, once")
		}
	}
	s := &stream{h: h, rc: http.NewResponseController(w), w: w, r: r, by: by, q: v.Get("q")}
	seen, err := h.looks.See(r.Context(), by, s.q) // a wrong query is told before the stream begins
	if err != nil {
		return err
	}
	if !seen.All() {
		s.shown = names(seen)
	}
	sub, id, missed, all := h.hub.join(by.Tenant, by.Tenant+"/"+by.Who, r.Header.Get("Last-Event-ID"))
	if sub == nil {
		return door.Fail(rest.CodeStreams, "")
	}
	s.sub = sub
	defer h.hub.leave(s.sub)
	w.Header().Set("Content-Type", "text/event-stream")
	switch {
	case !all:
		err = s.send("event: reset\nid: " + id + "\ndata: {}\n\n")
	case len(missed) == 0:
		err = s.send(": up to date\n\n")
	default:
		err = s.change(missed, id)
	}
	if err == nil {
		s.run()
	}
	return nil // the reader has gone or is too slow
}

func names(seen *look.Seen) map[string]bool {
	out := map[string]bool{}
	for b := range seen.Each {
		out[b.Name] = true
	}
	return out
}

// run sends changes until the reader leaves, is too slow, or may read no more.
func (s *stream) run() {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		var err error
		select {
		case <-s.r.Context().Done():
			return
		case <-beat.C:
			now, again := s.h.door.Again(s.r, rest.BoardsRead)
			if again != nil || now.Tenant != s.by.Tenant || now.Boards != s.by.Boards {
				return // logged out, expired, or with other rights meanwhile
			}
			err = s.send(": still here\n\n")
		case <-s.sub.wake:
			select {
			case <-pace.C:
			case <-s.r.Context().Done():
				return
			}
			boards, id := s.h.hub.take(s.sub)
			err = s.change(boards, id)
			pace.Reset(streamPace)
		}
		if err != nil {
			return
		}
	}
}

// change tells of boards that changed, those that the reader sees and asked for.
func (s *stream) change(boards []string, id string) error {
	data := struct {
		Boards []string `json:"boards"`
		Left   []string `json:"left,omitempty"`
	}{Boards: boards}
	if s.shown != nil {
		ctx, cancel := context.WithTimeout(s.r.Context(), door.Timeout)
		defer cancel()
		seen, err := s.h.looks.See(ctx, s.by, s.q)
		if err != nil {
			return err
		}
		now := names(seen)
		data.Boards = slices.DeleteFunc(slices.Clone(boards), func(b string) bool { return !now[b] })
		for b := range s.shown {
			if !now[b] {
				data.Left = append(data.Left, b)
			}
		}
		slices.Sort(data.Left)
		if s.shown = now; len(data.Boards)+len(data.Left) == 0 {
			return s.send("id: " + id + "\n: nothing that matches\n\n")
		}
	}
	if data.Boards == nil {
		data.Boards = []string{}
	}
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return s.send(fmt.Sprintf("event: change\nid: %s\ndata: %s\n\n", id, text))
}

func (s *stream) send(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.rc.Flush()
}

// cutID takes an event's id apart.
func cutID(id string) (base, version string) {
	base, version, _ = strings.Cut(id, "-")
	return base, version
}
