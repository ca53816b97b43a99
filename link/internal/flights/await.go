// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package flights

import (
	"context"
	"errors"
	"fmt"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Await waits for a token with a bound.
func Await(ctx context.Context, t mqtt.Token, limit time.Duration, lost <-chan struct{}) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	case <-lost:
		return errors.New("connection lost")
	case <-timer.C:
		return fmt.Errorf("no answer within %v", limit)
	}
}
