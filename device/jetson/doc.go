// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package jetson reads what only NVIDIA's boards have: power rails, GPU load,
// throttle alerts, over-current counters, power mode and fan. On any other machine
// its sensors find nothing and give nothing, so they may always be there.
//
// # What this is built on
//
// Paths, units and values are from NVIDIA's drivers and from logs of real boards;
// the trees in testdata are made from those. None of it has been seen on hardware
// by us yet. In particular not seen:
//
//   - that reads of the cv zones answer EAGAIN and not ENODATA under JetPack 7
//   - the layout of soctherm_oc below /sys/class/hwmon under JetPack 5 (it is read
//     by the driver's name, wherever it stands)
//   - whether the tachometer's hwmon keeps the file "rpm" under JetPack 7
//   - the further fields that some builds put into /var/lib/nvpmodel/status
//   - an AGX Orin with its old 19 V bus readings: no bound is put on voltages
//
// Not read in this form: the old ina3221x driver of JetPack 4 (iio), Thor's INA238,
// NVML, anything below debugfs (EMC, engines), which needs root.
package jetson
