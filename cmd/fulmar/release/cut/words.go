// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"fulmar/internal/cli"
	rel "fulmar/ota/release"
)

// part is what --component says.
type part struct{ name, path, version string }

// parsePart reads COMPONENT=PATH@VERSION.
func parsePart(text string) (p part, err error) {
	name, rest, ok := strings.Cut(text, "=")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 1 || !rel.ComponentName(name) || !rel.Name(rest[at+1:]) {
		return p, fmt.Errorf("%w: --component %q is not COMPONENT=PATH@VERSION, as agent=build/agent@1.9.0 (agent, worker, config, rootfs or model/NAME)", cli.ErrUsage, text)
	}
	return part{name, rest[:at], rest[at+1:]}, nil
}

// pairs reads COMPONENT:KEY=VALUE,KEY=VALUE and gives each pair to set.
func pairs(flag, text string, set func(component, key, value string) error) error {
	component, list, ok := strings.Cut(text, ":")
	if !ok || !rel.ComponentName(component) {
		return fmt.Errorf("%w: --%s %q is not COMPONENT:KEY=VALUE,KEY=VALUE", cli.ErrUsage, flag, text)
	}
	for pair := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(pair, "=")
		err := errors.New("wants KEY=VALUE")
		if ok && value != "" {
			err = set(component, key, value)
		}
		if err != nil {
			return fmt.Errorf("%w: --%s %s: %q: %w", cli.ErrUsage, flag, text, pair, err)
		}
	}
	return nil
}

// need sets one of the needs of a component.
func need(n *rel.Needs, key, value string) error {
	switch key {
	case "arch":
		n.Arch = value
	case "board":
		n.Board = value
	case "l4t_min":
		n.L4TMin = value
	case "l4t_max":
		n.L4TMax = value
	case "tensorrt":
		n.TensorRT = value
	case "space":
		return bytesOf(value, &n.Space)
	default:
		if !rel.ComponentName(key) {
			return errors.New("known are arch, board, l4t_min, l4t_max, tensorrt, space, and a component with the least version of it")
		}
		if n.Components == nil {
			n.Components = map[string]string{}
		}
		n.Components[key] = value
	}
	return nil
}

// health sets a part of how a component proves itself.
func health(h *rel.Health, key, value string) (err error) {
	seconds := func(into *int) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < time.Second || d%time.Second != 0 {
			return errors.New("wants a time as 90s or 10m")
		}
		*into = int(d / time.Second)
		return nil
	}
	switch key {
	case "within":
		return seconds(&h.WithinS)
	case "hold":
		return seconds(&h.HoldS)
	case "rate":
		h.RateMin, err = strconv.ParseFloat(value, 64)
		return err
	case "checks":
		h.Checks = strings.Split(value, "+")
		return nil
	}
	return errors.New("known are within, hold, rate and checks")
}

// bytesOf reads 500MB or 2GiB.
func bytesOf(text string, into *int64) error {
	for _, u := range []struct {
		end string
		n   int64
	}{{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"", 1}} {
		if digits, ok := strings.CutSuffix(text, u.end); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			if err != nil || n < 0 || n > rel.MaxSize/u.n {
				return errors.New("wants a size as 500MB, 64MiB or 2GB")
			}
			*into = n * u.n
			return nil
		}
	}
	return nil
}
