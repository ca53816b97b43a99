// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"fulmar/fleet/registry"
	"fulmar/fleet/web"
	"fulmar/schema"
)

const (
	maxKeepBody = 4 << 10
	maxWhy      = 400 // bytes of a reason
	// wipeTimeout is how long the removal of a board's data may take: 500 rows a commit.
	wipeTimeout = 10 * time.Minute
)

// Keeper knows which boards belong to the fleet, and changes that. who and why go into
// the audit log.
type Keeper interface {
	Boards(ctx context.Context, tenant string) ([]registry.Board, error)
	Pending(ctx context.Context, tenant string) ([]registry.Request, error)
	Approve(ctx context.Context, tenant string, id int64, who string) error
	Refuse(ctx context.Context, tenant string, id int64, who string) error
	Revoke(ctx context.Context, tenant, board, who, why string) error
	// Wipe forgets a board and removes all that it sent.
	Wipe(ctx context.Context, tenant, board, who, why string) error
}

// AdminAuth tells for which tenant a request may change things, and who asks.
type AdminAuth interface {
	Admin(r *http.Request) (tenant, who string, err error)
}

// Keep adds the routes with which boards are listed, approved, revoked and wiped.
func (h *Handler) Keep(k Keeper, admin AdminAuth) {
	h.mux.HandleFunc("GET /api/v1/boards", func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, func(w http.ResponseWriter, r *http.Request, tenant string) error { return listBoards(w, r, k, tenant) })
	})
	h.mux.HandleFunc("GET /api/v1/requests", func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, func(w http.ResponseWriter, r *http.Request, tenant string) error {
			return listRequests(w, r, k, tenant)
		})
	})
	on := func(route string, do func(ctx context.Context, c *change) error) {
		h.mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
			h.answer(w, r, func(w http.ResponseWriter, r *http.Request) error {
				tenant, who, err := admin.Admin(r)
				if err != nil {
					return err
				}
				c := &change{tenant: tenant, who: who, board: r.PathValue("board"), r: r}
				if c.why, err = readWhy(w, r); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
				defer cancel()
				if err := do(ctx, c); err != nil {
					return kept(err)
				}
				w.WriteHeader(http.StatusNoContent)
				return nil
			})
		})
	}
	on("POST /api/v1/requests/{id}/approve", func(ctx context.Context, c *change) error { return c.decide(ctx, k.Approve) })
	on("POST /api/v1/requests/{id}/refuse", func(ctx context.Context, c *change) error { return c.decide(ctx, k.Refuse) })
	on("POST /api/v1/boards/{board}/revoke", func(ctx context.Context, c *change) error {
		if schema.CheckBoard(c.board) != nil {
			return registry.ErrUnknown
		}
		return k.Revoke(ctx, c.tenant, c.board, c.who, c.why)
	})
	h.mux.HandleFunc("DELETE /api/v1/boards/{board}", func(w http.ResponseWriter, r *http.Request) {
		h.answer(w, r, func(w http.ResponseWriter, r *http.Request) error { return wipe(w, r, k, admin) })
	})
}

// change is one request to change something.
type change struct {
	tenant, who, board, why string
	r                       *http.Request
}

func (c *change) decide(ctx context.Context, do func(context.Context, string, int64, string) error) error {
	id, err := strconv.ParseInt(c.r.PathValue("id"), 10, 64)
	if err != nil {
		return registry.ErrUnknown
	}
	return do(ctx, c.tenant, id, c.who)
}

// wipe removes a board and all its data. It goes on when the client has gone: half of a
// wipe helps nobody.
func wipe(w http.ResponseWriter, r *http.Request, k Keeper, admin AdminAuth) error {
	tenant, who, err := admin.Admin(r)
	if err != nil {
		return err
	}
	board := r.PathValue("board")
	if r.URL.Query().Get("confirm") != board {
		return errInput("wiping removes all data of the board: confirm=NAME has to repeat its name")
	}
	why, err := readWhy(w, r)
	if err != nil {
		return err
	}
	if schema.CheckBoard(board) != nil {
		return web.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), wipeTimeout)
	defer cancel()
	rc := http.NewResponseController(w)
	if err := rc.SetWriteDeadline(time.Now().Add(wipeTimeout + writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := k.Wipe(ctx, tenant, board, who, why); err != nil {
		return kept(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readWhy reads the reason, which may be left out.
func readWhy(w http.ResponseWriter, r *http.Request) (string, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxKeepBody))
	if err != nil {
		return "", errInput("the request is over 4 KiB or was cut off")
	}
	var v struct {
		Why string `json:"why"`
	}
	if len(b) > 0 && json.Unmarshal(b, &v) != nil {
		return "", errInput(`the body wants to be empty or {"why": "a reason"}`)
	}
	if len(v.Why) > maxWhy {
		return "", errInput("why wants at most 400 bytes")
	}
	return v.Why, nil
}

// kept puts the registry's errors into the API's.
func kept(err error) error {
	switch {
	case errors.Is(err, registry.ErrUnknown):
		return web.ErrNotFound
	case errors.Is(err, registry.ErrElsewhere):
		return errConflict("Its TPM or key is that of a board with another name; wipe that one first, then this one may ask again")
	}
	return err
}

// boardReply is a board as GET /api/v1/boards lists it.
type boardReply struct {
	Board       string     `json:"board"`
	Trust       string     `json:"trust"` // ek-chain, ek-listed, ek-first-use or software
	Fingerprint string     `json:"fingerprint"`
	TPM         *tpmReply  `json:"tpm,omitempty"`
	Enrolled    time.Time  `json:"enrolled"`
	Until       time.Time  `json:"certificate_until"`
	Revoked     *time.Time `json:"revoked,omitempty"`
}

type tpmReply struct {
	Kind     string `json:"kind"` // the board's own words, but note
	Maker    string `json:"maker"`
	Firmware string `json:"firmware"`
	Note     string `json:"note"` // what the fleet found of its maker's certificate
}

func listBoards(w http.ResponseWriter, r *http.Request, k Keeper, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	boards, err := k.Boards(ctx, tenant)
	if err != nil {
		return err
	}
	out := make([]boardReply, len(boards))
	for i := range boards {
		b := &boards[i]
		out[i] = boardReply{Board: b.Name, Trust: b.Trust, Fingerprint: b.Fingerprint(), Enrolled: b.EnrolledAt, Until: b.NotAfter}
		if len(b.EKHash) > 0 {
			out[i].TPM = &tpmReply{b.TPMKind, b.TPMMaker, b.TPMFirmware, b.EKNote}
		}
		if b.Revoked {
			out[i].Revoked = &b.RevokedAt
		}
	}
	return reply(w, map[string]any{"boards": out})
}

// requestReply is a board that waits for a person.
type requestReply struct {
	ID          int64             `json:"id"`
	Board       string            `json:"board"`
	Trust       string            `json:"trust"` // what it would have
	Fingerprint string            `json:"fingerprint"`
	TPM         *tpmReply         `json:"tpm,omitempty"`
	Facts       map[string]string `json:"facts,omitempty"`
	Why         string            `json:"why"` // new, ak, ek, key, to-software, to-tpm or elsewhere
	Say         string            `json:"say"` // why, as a sentence
	From        string            `json:"from"`
	First       time.Time         `json:"first"`
	Last        time.Time         `json:"last"`
	Asked       int               `json:"asked"`
	Decision    string            `json:"decision,omitempty"` // approved or refused
	DecidedBy   string            `json:"decided_by,omitempty"`
}

func listRequests(w http.ResponseWriter, r *http.Request, k Keeper, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	pending, err := k.Pending(ctx, tenant)
	if err != nil {
		return err
	}
	out := make([]requestReply, len(pending))
	for i := range pending {
		q := &pending[i]
		out[i] = requestReply{
			ID: q.ID, Board: q.Board, Trust: q.Trust, Fingerprint: q.Fingerprint(), Facts: q.Facts, Why: string(q.Why), Say: q.Say,
			From: q.From, First: q.First, Last: q.Last, Asked: q.Asked, Decision: q.Decision, DecidedBy: q.DecidedBy,
		}
		if len(q.EKHash) > 0 {
			out[i].TPM = &tpmReply{q.TPMKind, q.TPMMaker, q.TPMFirmware, q.EKNote}
		}
	}
	return reply(w, map[string]any{"requests": out})
}
