// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package modbus drives coils and holding registers of Modbus devices, over TCP and over a
// serial line (RTU), as in "MODBUS Application Protocol Specification V1.1b3" and "MODBUS
// over Serial Line V1.02". It is a client of five functions: read coils (1), holding (3) and
// input registers (4), write one coil (5) and one register (6).
//
// Outputs of one address share one connection, since a serial line has one master and many
// controllers take one connection: a device that does not answer delays those on its bus by
// its timeout, and no other bus.
package modbus
