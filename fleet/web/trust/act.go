// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxWhy bounds the reason that a person gives, in bytes: the audit log keeps few more.
const maxWhy = 400

// Problem is why a form did nothing, for a page.
type Problem struct {
	Code     int // HTTP status
	What, Do string
}

func (p *Problem) Error() string { return p.What }

// Act does what a form of the page asks for, whose values have been read: POST
// /requests/{id}, /boards/{board}/revoke or /boards/{board}/forget. It gives the path
// of the page that shows the outcome; its error is a [*Problem], or a fault.
func Act(ctx context.Context, k Keeper, tenant, who string, r *http.Request) (next string, err error) {
	board := r.PathValue("board")
	if board == "" {
		next, err = r.PostForm.Get("back"), settle(ctx, k, tenant, who, r)
	} else {
		next, err = standing(ctx, k, tenant, who, board, r)
	}
	switch {
	case errors.Is(err, ErrGone):
		err = &Problem{http.StatusNotFound, "This is not there any more", "Somebody else may have decided it, or it was too old. Look at the fleet for what waits now."}
	case errors.Is(err, ErrElsewhere):
		err = &Problem{http.StatusConflict, "Its TPM or key is that of another board", "One TPM is one board. Forget the other board first, on its page; then this one may ask again."}
	}
	return next, err
}

// settle lets a board in that asks, or turns it down.
func settle(ctx context.Context, k Keeper, tenant, who string, r *http.Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return ErrGone
	}
	switch r.PostForm.Get("decision") {
	case "approve":
		return k.Approve(ctx, tenant, id, who)
	case "refuse":
		return k.Refuse(ctx, tenant, id, who)
	}
	return &Problem{http.StatusBadRequest, "Nothing was decided", "Go back and press one of the two buttons."}
}

// standing shuts a board out, or takes it and its ban out of the registry.
func standing(ctx context.Context, k Keeper, tenant, who, board string, r *http.Request) (next string, _ error) {
	why := strings.TrimSpace(r.PostForm.Get("why"))
	switch {
	case r.PostForm.Get("confirm") != board:
		return "", &Problem{http.StatusUnprocessableEntity, "Nothing was done: the name does not match", "Go back and type the name of the board exactly as it stands there."}
	case len(why) > maxWhy:
		return "", &Problem{http.StatusUnprocessableEntity, "Nothing was done: the reason is too long", "Go back and give the reason in fewer words."}
	case strings.HasSuffix(r.URL.Path, "/revoke"):
		return "/boards/" + url.PathEscape(board), k.Revoke(ctx, tenant, board, who, why)
	}
	return "/", k.Forget(ctx, tenant, board, who, why)
}
