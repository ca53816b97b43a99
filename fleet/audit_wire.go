// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"path/filepath"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry"
)

// AuditDir is the folder of the audit log's key, below the data folder.
const AuditDir = "audit"

// OpenBook opens the audit log of a registry with the key that signs it, which is made
// where there is none. close lets the holder of the key go.
func OpenBook(data string, reg *registry.Registry) (b *audit.Book, close func() error, err error) {
	key, err := audit.OpenKey(filepath.Join(data, AuditDir), OpenTPMKey)
	if err != nil {
		return nil, nil, err
	}
	return audit.NewBook(reg.Audit(), key), key.Close, nil
}
