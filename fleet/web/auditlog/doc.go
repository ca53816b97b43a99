// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package auditlog is the part of the page that shows who did what to which board, and
// whether the log of it is whole.
package auditlog
