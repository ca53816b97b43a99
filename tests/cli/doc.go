// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package cli holds the command lines of fulmar and fulmar-fleet to transcripts: what
// is typed, what comes out where, and how it ends. testdata has one for each subject.
// Words that scripts and people rely on change there, in sight. FULMAR_UPDATE=1 writes
// the help texts anew.
package cli
