// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// modes are the two sides of the codec: deterministic on the way out, strict and
// bounded on the way in. Built once, never changed.
type modes struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

var codec = sync.OnceValue(func() modes {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constants: only a broken build gets here
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   8,
		MaxArrayElements:  MaxSeries * 2,
		MaxMapPairs:       MaxSeries,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorNone, // fields of a newer minor are skipped
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return modes{enc, dec}
})

type validator interface{ Validate() error }

// Encode gives the deterministic CBOR of one of this package's wire types, or
// an error that says which limit it breaks.
func Encode(v any) ([]byte, error) {
	if c, ok := v.(validator); ok {
		if err := c.Validate(); err != nil {
			return nil, err
		}
	}
	b, err := codec().enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if len(b) > MaxPayload {
		return nil, fmt.Errorf("encode %T: %d bytes, at most %d", v, len(b), MaxPayload)
	}
	return b, nil
}

// Decode reads one of this package's wire types from outside bytes and checks it.
func Decode(b []byte, v any) error {
	if len(b) > MaxPayload {
		return fmt.Errorf("decode %T: %d bytes, at most %d", v, len(b), MaxPayload)
	}
	if err := codec().dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if c, ok := v.(validator); ok {
		return c.Validate()
	}
	return nil
}

// EncodeRecord gives the payload that the spool keeps and a message carries.
func EncodeRecord(r *Record) ([]byte, error) {
	b, err := Encode(r)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("record of kind %s: %d bytes, at most %d", r.Kind, len(b), MaxRecord)
	}
	return b, nil
}

// DecodeRecord reads the payload of one record.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("record of %d bytes, at most %d", len(b), MaxRecord)
	}
	r := new(Record)
	if err := Decode(b, r); err != nil {
		return nil, err
	}
	return r, nil
}

// DecodeTime reads only what a record is and when it was made; the rest of it is not
// looked at.
func DecodeTime(b []byte) (Kind, Time, error) {
	if len(b) > MaxRecord {
		return 0, Time{}, fmt.Errorf("record of %d bytes, at most %d", len(b), MaxRecord)
	}
	var r struct {
		Kind Kind `cbor:"1,keyasint"`
		Time Time `cbor:"2,keyasint"`
	}
	err := Decode(b, &r)
	return r.Kind, r.Time, err
}
