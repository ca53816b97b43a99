// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

// Meta is what people say of a board; the board itself never changes it.
type Meta struct {
	Site        string            `json:"site,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
	Location    *Location         `json:"location,omitempty"`
	// LocationAccuracy is the radius around Location within which the board is, in
	// metres; 0: not told.
	LocationAccuracy float64 `json:"edge-location-accuracy,omitempty"`
	// PowerBudget is what the board may draw, in watts; 0: not told.
	PowerBudget float64 `json:"power-budget-watt,omitempty"`
	// Version rises with each change, for If-Match; 0: nothing was ever said.
	Version int64 `json:"version"`
}

// Location is a place on Earth, in degrees of WGS 84.
type Location struct {
	Lat float64 `json:"lat"`
	Lon float64 `json:"lon"`
}

// SavedQuery is a query over boards with a name, of one tenant.
type SavedQuery struct {
	Name  string `json:"name"`
	Query string `json:"q"`
}
