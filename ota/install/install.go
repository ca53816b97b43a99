// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package install gives the installer of each component of a board; the packages below it
// are them (ADR 0058):
//
//	programs   agent, worker   slots that the golden launcher starts
//	models     model/NAME      folders, swapped in the worker
//	conf       config          drop-ins, checked by the board's own loader
//	rootfs     rootfs          NVIDIA A/B by a helper that is root; experimental
//	site       any             a program of the site's own: RAUC, SWUpdate
//	tree                       versions of a folder side by side, for models and conf
//
// installtest is what each of them is held to.
package install

import (
	"fmt"
	"strings"

	"fulmar/ota"
	"fulmar/ota/install/models"
)

// Set is the installers of a board; nil ones are not there.
type Set struct {
	// Site are programs of the site's own, by component: they go before ours.
	Site   map[string]ota.Installer
	Agent  ota.Installer
	Worker ota.Installer
	Config ota.Installer
	Rootfs ota.Installer
	Models *models.Models
}

// Of gives the installer of a component.
func (s *Set) Of(component string) (ota.Installer, error) {
	if i := s.Site[component]; i != nil {
		return i, nil
	}
	if strings.HasPrefix(component, models.Prefix) && s.Models != nil {
		return s.Models.Installer(component)
	}
	i := map[string]ota.Installer{"agent": s.Agent, "worker": s.Worker, "config": s.Config, "rootfs": s.Rootfs}[component]
	if i == nil {
		return nil, fmt.Errorf("this board takes no updates of %.80q", component)
	}
	return i, nil
}
