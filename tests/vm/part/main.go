// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command part is the test harness's hand inside a virtual machine, and the door of its
// network.
//
//	part agent             in the machine: runs commands that come over a virtio port
//	part relay HOST:PORT   on the host: joins standard input and output with an address
//
// It is no part of the product and is never packaged.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"fulmar/tests/vm/wire"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "agent":
		err = agent()
	case len(os.Args) == 3 && os.Args[1] == "relay":
		err = relay(os.Args[2])
	default:
		err = fmt.Errorf("usage: part agent | part relay HOST:PORT")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "part:", err)
		os.Exit(1)
	}
}

// agent serves the port until the machine ends. The port is there once udev has loaded
// the driver.
func agent() error {
	path := "/dev/virtio-ports/" + wire.Port
	var port *os.File
	for range 600 { // a minute: an emulated machine is slow
		var err error
		if port, err = os.OpenFile(path, os.O_RDWR, 0); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if port == nil {
		return fmt.Errorf("no %s", path)
	}
	defer port.Close()
	return wire.Serve(context.Background(), port)
}

// relay joins one connection of the machine with a server of the host.
func relay(address string) error {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	go func() {
		_, _ = io.Copy(c, os.Stdin)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, c)
	return err
}
