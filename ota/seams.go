// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import "fulmar/ota/seam"

// What the parts of an update meet at; see package seam.
type (
	// Order is what a board shall do, proven already.
	Order = seam.Order
	// Installer brings one kind of component into force.
	Installer = seam.Installer
	// Restarter is an Installer that starts the machine anew itself.
	Restarter = seam.Restarter
	// Shadower is an [Installer] that can run something beside what is in use.
	Shadower = seam.Shadower
	// Fetcher brings objects.
	Fetcher = seam.Fetcher
	// Gate tells how a component on trial is.
	Gate = seam.Gate
	// Floor is the lowest epoch that may be installed.
	Floor = seam.Floor
	// Restart is what has to start again before a switch takes effect.
	Restart = seam.Restart
	// Standing is how something that was staged stands.
	Standing = seam.Standing
	// Verdict is what the gate thinks.
	Verdict = seam.Verdict
	// Refusal is a reason why an update cannot go on, at least not now.
	Refusal = seam.Refusal
	// Moment is what an update is about to do.
	Moment = seam.Moment
)

// The values of those types, and their bounds.
const (
	RestartNone    = seam.RestartNone
	RestartProgram = seam.RestartProgram
	RestartMachine = seam.RestartMachine

	NotYet  = seam.NotYet
	OnTrial = seam.OnTrial
	InForce = seam.InForce
	Fallen  = seam.Fallen

	Wait = seam.Wait
	Good = seam.Good
	Bad  = seam.Bad

	ToFetch  = seam.ToFetch
	ToSwitch = seam.ToSwitch
	ToGoBack = seam.ToGoBack

	MaxToken  = seam.MaxToken
	MaxBefore = seam.MaxBefore
)

// ErrNoBase: what runs here is not what a patch is to be applied to.
var ErrNoBase = seam.ErrNoBase
