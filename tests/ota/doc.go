// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ota holds updates to what they promise, with package ota as it is and boards
// that are simulated around it: thousands of them in simulated time with lost chunks,
// partitions, kills, full disks and wrong clocks; power cuts at each step of the disk over the
// installers as they are; and kills of a real process over a real folder.
//
// FULMAR_SOAK set makes 10,000 updates in place of 1,000, and 10,000 kills in place of 200.
// FULMAR_OTA_SEED repeats one update, with its log.
package ota
