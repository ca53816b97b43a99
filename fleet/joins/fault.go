// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"errors"

	"fulmar/fleet/rollout/plan"
	"fulmar/schema/rest"
)

// Fault finds the field of a request that an error is about: of a plan.
func Fault(err error) (rest.Fault, bool) {
	var wrong *plan.Error
	if !errors.As(err, &wrong) {
		return rest.Fault{}, false
	}
	return rest.Fault{Pointer: wrong.Pointer, Detail: wrong.Detail}, true
}
