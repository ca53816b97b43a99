// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command guest is the first program of a machine that tests a GPIO line: it mounts what
// the test needs, runs it, says how it ended, and turns the machine off.
package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// line is a free line of the machine's chip; its fourth one is the power button.
const line = "9030000.pl061/5"

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"debugfs", "/sys/kernel/debug"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			fmt.Println(err)
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			fmt.Println("mount", m[1], err)
		}
	}
	cmd := exec.Command("/gpio.test", "-test.v")
	cmd.Env = []string{"FULMAR_GPIO=" + line, "TMPDIR=/tmp"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	fmt.Println("ended:", cmd.Run())
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("turn off:", err)
	}
}
