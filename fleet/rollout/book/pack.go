// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package book

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"

	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/plan"
)

// maxPlan bounds what is unpacked: 100,000 boards with 32 facts of 256 bytes each would
// be more; those of real boards are 300 bytes together.
const maxPlan = 512 << 20

// planned is a board as it was planned, in the order of its fields.
type planned struct {
	_              struct{} `cbor:",toarray"`
	Name           string
	Site, Zone     string
	Was            string
	Wave           int
	Shadow, Silent bool
	Facts          map[string]string
}

// pack writes the boards as they were planned: 100,000 rows would take seconds, one
// piece takes a tenth of one.
func pack(r *rollout.Rollout) ([]byte, error) {
	list := make([]planned, len(r.Boards))
	for i := range r.Boards {
		b := &r.Boards[i]
		list[i] = planned{Name: b.Name, Site: b.Site, Zone: b.Zone, Was: b.Was, Wave: b.Wave, Shadow: b.Shadow, Silent: b.Silent, Facts: b.Facts}
	}
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("pack the plan: %w", err)
	}
	if err := cbor.NewEncoder(w).Encode(list); err != nil {
		return nil, fmt.Errorf("pack the plan: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the plan: %w", err)
	}
	return out.Bytes(), nil
}

func unpack(b []byte, r *rollout.Rollout) error {
	dec, err := cbor.DecOptions{MaxArrayElements: plan.MaxBoards}.DecMode()
	if err != nil {
		return fmt.Errorf("unpack the plan: %w", err)
	}
	var list []planned
	if err := dec.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxPlan)).Decode(&list); err != nil {
		return fmt.Errorf("unpack the plan: %w", err)
	}
	r.Boards = make([]rollout.Board, len(list))
	for i := range list {
		b := &list[i]
		r.Boards[i] = rollout.Board{
			Name: b.Name, Site: b.Site, Zone: b.Zone, Was: b.Was, Release: b.Was, Wave: b.Wave, Shadow: b.Shadow, Silent: b.Silent, Facts: b.Facts, Since: r.Created,
		}
	}
	return nil
}
