// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command series reads every sensor of this machine once and prints the series and their
// quality, one a line: what a board samples inside a sandbox is compared with outside.
package main

import (
	"fmt"
	"slices"

	"fulmar/device"
	"fulmar/device/jetson"
	"fulmar/device/sensor"
)

func main() {
	root := device.NewRoot("/")
	var lines []string
	for _, s := range append(sensor.New(sensor.Config{Mounts: []string{"/"}}, root), jetson.New(root)...) {
		s.Read(nil) // rates want two looks
		for _, r := range s.Read(nil) {
			lines = append(lines, fmt.Sprint(r.Series, " ", r.Quality))
		}
	}
	slices.Sort(lines)
	for _, l := range slices.Compact(lines) {
		fmt.Println(l)
	}
	for name, value := range device.Facts(root) {
		fmt.Println("fact", name, value)
	}
}
