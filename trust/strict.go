// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"

	"fulmar/internal/strictjson"
)

// strict is [strictjson.Decode]; what it refuses is ErrMalformed.
func strict(b []byte, limit int, into any) error {
	if err := strictjson.Decode(b, limit, into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
