// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

func (s *Server) wireForeign() error { return nil }
