// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package web is the page: server-rendered HTML, one small live script, charts.
package web
