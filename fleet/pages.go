// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fulmar/fleet/web"
	"fulmar/fleet/web/views"
)

// pages puts the views of the page together, in the order of its bar.
func (s *Server) pages(src web.Source) []web.Page {
	return views.Pages(views.Config{Source: src, Keeper: decider{s.reg}, Log: s.log})
}
