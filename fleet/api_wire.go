// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/api"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

// wireAPI makes the API of the parts and puts it where it belongs.
func (s *Server) wireAPI(mux *http.ServeMux, src *store.Store, who auth, hub *api.Hub) error {
	h, err := api.New(api.Config{
		Caller: who.caller, Source: src, Hub: hub, Log: s.log,
		Keys: s.reg.Requests(), Check: src.Check, Keeper: keeper{s.reg, s},
	})
	if err != nil {
		return fmt.Errorf("make the API: %w", err)
	}
	mux.Handle("/api/", h)
	return nil
}

// caller tells who asks, by the session or the token of a request.
func (a auth) caller(r *http.Request) (access.Caller, error) {
	tenant, err := a.Reader(r)
	if err != nil {
		return access.Caller{}, err
	}
	if _, name, err := a.Admin(r); err == nil {
		return access.Caller{Tenant: tenant, Who: name, Author: name, Rights: rest.Admin.Rights()}, nil
	}
	return access.Caller{Tenant: tenant, Who: "token", Rights: rest.Viewer.Rights()}, nil
}
