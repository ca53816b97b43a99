// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/api"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

// wireAPI makes the API of the parts.
func (s *Server) wireAPI(src *store.Store, who auth, hub *api.Hub) (*api.Handler, error) {
	return api.New(api.Config{
		Caller: who.caller, Source: src, Hub: hub, Log: s.log,
		Keys: s.reg.Requests(), Check: src.Check, Keeper: keeper{s.reg, s},
	})
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
