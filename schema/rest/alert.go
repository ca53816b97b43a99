// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// AlertRule says what is worth an alert: a query over boards, or a PromQL expression
// whose every sample is something wrong. Exactly one of Query and PromQL is set.
type AlertRule struct {
	// ID names the rule: a-z 0-9 - _ . of at most 64 bytes. The built-in ones begin
	// with "fulmar."; of them only Off may be changed.
	ID       string `json:"id"`
	Summary  string `json:"summary"` // what is wrong, for people; the scope and the count are added
	Severity string `json:"severity"`
	Query    string `json:"q,omitempty"`
	PromQL   string `json:"promql,omitempty"`
	// For is how long it has to be so, as "90s", "10m" or "1h30m"; "" is at once.
	For string `json:"for,omitempty"`
	// By are the fields of which each combination of values is one alert, as site and
	// cause for a query and labels for PromQL. Empty: each board, each sample.
	By []string `json:"by,omitempty"`
	// Labels are put on each alert of the rule.
	Labels  map[string]string `json:"labels,omitempty"`
	Off     bool              `json:"off,omitempty"`
	BuiltIn bool              `json:"built_in,omitempty"` // read only
	Version int64             `json:"version"`            // rises with each change, for If-Match
	// Error is why the newest evaluation failed; "" where it did not. Read only.
	Error string `json:"error,omitempty"`
}

// Severities of an alert.
const (
	SeverityWarning  = "warning"
	SeverityCritical = "critical"
)

// States of an alert.
const (
	AlertPending  = "pending"  // wrong, not yet for as long as the rule says
	AlertFiring   = "firing"   // told to whoever listens
	AlertResolved = "resolved" // over; kept for a day
)

// Alert is one thing that is wrong: what a rule found, of one group of boards.
type Alert struct {
	ID       string            `json:"id"`
	Rule     string            `json:"rule"`
	State    string            `json:"state"`
	Severity string            `json:"severity"`
	Summary  string            `json:"summary"` // a sentence: "hall-4: 11 boards unreachable: connection lost"
	Labels   map[string]string `json:"labels"`  // alertname, severity and those of the group
	Boards   []string          `json:"boards,omitempty"`
	Count    int               `json:"count"`           // boards or samples; Boards names the first 20
	Value    *float64          `json:"value,omitempty"` // PromQL: of the worst sample
	Since    time.Time         `json:"since"`           // wrong since
	Fired    time.Time         `json:"fired,omitzero"`
	Resolved time.Time         `json:"resolved,omitzero"`
}

// Webhook is where the server tells others what happened.
type Webhook struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	URL  string `json:"url"`
	// Kind is "webhook": POST of one event, signed as Standard Webhooks has it; or
	// "alertmanager": POST of all firing alerts to URL, which ends in /api/v2/alerts.
	Kind string `json:"kind"`
	// Events are the types that it gets, as "alert.firing" or "rollout.*"; empty: all.
	Events []string `json:"events,omitempty"`
	// Internal lets it lie at a private address; only who may write users may set it.
	Internal bool `json:"internal,omitempty"`
	Off      bool `json:"off,omitempty"`
	// Secret, "whsec_...", is given once, in the answer that made the webhook.
	Secret  string    `json:"secret,omitempty"`
	Author  string    `json:"author,omitempty"`
	Made    time.Time `json:"made,omitzero"`
	Version int64     `json:"version"`
	Waiting int       `json:"waiting"` // deliveries not done
	// Error is why the newest try failed; "" where it did not.
	Error string `json:"error,omitempty"`
}

// Kinds of a webhook.
const (
	HookWebhook      = "webhook"
	HookAlertmanager = "alertmanager"
)

// States of a delivery.
const (
	DeliveryWaiting   = "waiting"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed" // given up after three days, or the receiver said 410 Gone
)

// Delivery is one event on its way to one webhook.
type Delivery struct {
	ID      int64     `json:"id"`
	Hook    string    `json:"hook"`
	Message string    `json:"message_id"` // header webhook-id; the same in each try
	Type    string    `json:"type"`       // alert.firing
	Subject string    `json:"subject"`    // what it is about; ordered within one
	Seq     int64     `json:"seq"`        // of the subject, rising
	State   string    `json:"state"`
	Tries   int       `json:"tries"`
	Made    time.Time `json:"made"`
	Last    time.Time `json:"last,omitzero"` // newest try
	Next    time.Time `json:"next,omitzero"` // next try
	Status  int       `json:"status,omitempty"`
	Error   string    `json:"error,omitempty"`
}
