// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"os"
	"path/filepath"

	"fulmar/fleet/twins"
	"fulmar/trust"
	"fulmar/twin/wire"
)

// twinKeys sign what the fleet says of twins, and know what it signed.
type twinKeys interface {
	SignTwin(statement []byte) (envelope []byte, err error)
	OpenTwin(envelope []byte) (statement []byte, err error)
}

// newTwins joins the twins to the registry, the keys and the gateway, which may be made
// later.
func (s *Server) newTwins(keys twinKeys) *twins.Twins {
	return twins.New(twins.Config{
		Rows: s.reg.Twins(), Sign: keys.SignTwin, Open: keys.OpenTwin, Courier: courier{s}, Log: s.log,
	})
}

// SendTwin implements [twins.Courier].
func (c courier) SendTwin(string, string, *wire.Down) error { return twins.ErrAway }

// oneKey signs with one key of the data folder.
type oneKey struct{ *trust.Signer }

func openOneKey(data string) (oneKey, error) {
	file := filepath.Join(data, "twin.key")
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		k, err := trust.NewKeyFile(file, trust.P256)
		return oneKey{k}, err
	}
	k, err := trust.OpenSigner("file:"+file, nil)
	return oneKey{k}, err
}

func (k oneKey) SignTwin(statement []byte) ([]byte, error) {
	e, err := trust.NewEnvelope(trust.TypeTwin, statement)
	if err == nil {
		err = e.Sign(k)
	}
	if err != nil {
		return nil, err
	}
	return e.Encode()
}

func (k oneKey) OpenTwin(envelope []byte) ([]byte, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	if !e.SignedBy(k.Public()) {
		return nil, errors.New("signed by another key")
	}
	return e.Unverified(), nil
}
