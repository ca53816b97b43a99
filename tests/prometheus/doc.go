// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package prometheus holds the telemetry against a real Prometheus.
package prometheus
