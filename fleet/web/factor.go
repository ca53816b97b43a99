// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/http"

	"fulmar/fleet/web/qr"
)

// factorForm is what the page of the second factor shows.
type factorForm struct {
	On       bool
	Must     bool // the role wants it
	Recovery int  // codes that are left
	Error    string
	Asked    bool // a key was shown; its code is waited for
	Key      []string
	Code     qr.Code
	Codes    []string // recovery codes, this once
	User     string
}

// factor shows and changes the second factor of whoever is logged in.
func (h *Handler) factor(w http.ResponseWriter, r *http.Request) {
	s, ok := h.auth.Session(r)
	switch {
	case h.factors == nil:
		h.failed(w, r, ErrNotFound)
		return
	case !ok:
		http.Redirect(w, r, "/login?next=/second-factor", http.StatusSeeOther)
		return
	case s.MustChange:
		http.Redirect(w, r, "/password", http.StatusSeeOther)
		return
	}
	f := factorForm{Must: s.MustEnrol, User: s.User}
	code := http.StatusOK
	if r.Method == http.MethodPost {
		if !h.readForm(w, r) {
			return
		}
		if err := h.changeFactor(w, r, &f); err != nil {
			code, f.Error = h.explain(err)
		}
	}
	var err error
	if f.On, f.Recovery, err = h.factors.Factor(r); err != nil && f.Codes == nil {
		h.failed(w, r, err)
		return
	}
	p := h.blank("factor", "Second factor")
	p.Data = f
	h.render(w, r, code, p)
}

func (h *Handler) changeFactor(w http.ResponseWriter, r *http.Request, f *factorForm) error {
	switch r.PostForm.Get("do") {
	case "begin":
		key, uri, err := h.factors.BeginFactor(r)
		if err != nil {
			return err
		}
		f.Asked = true
		for len(key) > 4 {
			f.Key, key = append(f.Key, key[:4]), key[4:]
		}
		f.Key = append(f.Key, key)
		f.Code, err = qr.Encode(uri)
		return err
	case "confirm":
		f.Asked = true
		codes, err := h.factors.ConfirmFactor(w, r, r.PostForm.Get("code"))
		f.Codes = codes
		return err
	case "off":
		return h.factors.DropFactor(r, r.PostForm.Get("password"), r.PostForm.Get("code"))
	}
	return nil
}
