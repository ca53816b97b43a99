// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"fmt"
	"io"
	"net"
	"strings"

	"fulmar/fleet"
	"fulmar/internal/jointoken"
)

// tokenAddress is host:port that goes into a join token: what was given, with the
// server's port where it names none, or else what the server of the data folder is
// reached by. It tells talk where boards will not get there.
func tokenAddress(data, given string, talk io.Writer) (string, error) {
	known, err := fleet.Address(data)
	address := given
	switch {
	case given == "":
		if err != nil {
			return "", err
		}
		address = known
	case !strings.Contains(given, ":") || net.ParseIP(given) != nil:
		_, port, err := net.SplitHostPort(known)
		if err != nil {
			return "", fmt.Errorf("--address %s: wants HOST:PORT; the server's port is not known until it has served from %s once", given, data)
		}
		address = net.JoinHostPort(given, port)
	}
	if address == "" {
		fmt.Fprintln(talk, "no address of the fleet is in it: give --address HOST:PORT, or on the board: fulmar enrol --fleet HOST:PORT")
		return "", nil
	}
	if err := jointoken.CheckAddress(address); err != nil {
		return "", fmt.Errorf("--address %q %w", given, err)
	}
	if fleet.Loopback(address) {
		fmt.Fprintf(talk, "it names %s, which only boards on this machine reach: give --address HOST:PORT, or set hosts (and listen) in the server's config\n", address)
	} else {
		fmt.Fprintf(talk, "boards reach the fleet at %s\n", address)
	}
	return address, nil
}
