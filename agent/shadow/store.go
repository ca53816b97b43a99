// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"fulmar/schema"
)

// maxState bounds what is kept, in bytes: what package twin saves at most (2 MiB, a few
// kilobytes as a rule), and the history.
const maxState = 2<<20 + 512<<10

// saved is all that a board keeps of its twin.
type saved struct {
	V       uint8     `cbor:"1,keyasint"`
	Starts  uint32    `cbor:"3,keyasint"` // runs of the program, in their names
	Tenant  string    `cbor:"4,keyasint,omitempty"`
	Board   string    `cbor:"5,keyasint,omitempty"`
	Twin    []byte    `cbor:"6,keyasint"`           // twin.Board.Save
	Boot    uint64    `cbor:"7,keyasint,omitempty"` // 0: not known
	Mono    int64     `cbor:"8,keyasint,omitempty"` // up to which leases are counted
	Trial   *trial    `cbor:"9,keyasint,omitempty"`
	History []Change  `cbor:"10,keyasint,omitempty"` // the oldest first
	Alarms  []subject `cbor:"11,keyasint,omitempty"` // told to the fleet and standing
	// Outbox is what is to be told and was not yet when this was saved: perhaps it was since.
	Outbox []schema.Report `cbor:"12,keyasint,omitempty"`
}

// codec writes and reads the state.
var codec = sync.OnceValues(func() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode()
	if err != nil {
		panic(err) // the options are constants: only a broken build gets here
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: 1 << 10, MaxMapPairs: 1 << 10,
	}.DecMode()
	if err != nil {
		panic(err) // the same
	}
	return enc, dec
})

func pack(s *saved) ([]byte, error) {
	enc, _ := codec()
	return enc.Marshal(s)
}

func unpack(b []byte) (*saved, error) {
	var s saved
	_, dec := codec()
	if err := dec.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	if s.V != schema.Version {
		return nil, fmt.Errorf("is of version %d, this program reads %d", s.V, schema.Version)
	}
	if len(s.History) > MaxHistory || len(s.Alarms) > maxAlarms || len(s.Outbox) > maxOutbox {
		return nil, fmt.Errorf("holds a history of %d, %d alarms and %d reports, at most %d, %d and %d",
			len(s.History), len(s.Alarms), len(s.Outbox), MaxHistory, maxAlarms, maxOutbox)
	}
	return &s, nil
}
