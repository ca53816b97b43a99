// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
)

// Config names one receiver of Prometheus' remote write.
type Config struct {
	// Name tells receivers apart, here and in the folder; a new name begins anew.
	Name string `yaml:"name"`
	// URL is where samples are posted, https://host/api/v1/write. http only to this machine.
	URL string `yaml:"url"`
	// TokenFile holds a bearer token; or Username and PasswordFile.
	TokenFile    string `yaml:"token_file"`
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// CAFile is PEM; "" = the system's authorities.
	CAFile string `yaml:"ca_file"`
	// OrgID is sent as X-Scope-OrgID, which Mimir, Cortex and Loki ask for; "" = none.
	OrgID string `yaml:"org_id"`
	// Shards is how many requests are under way at once. Default 4, at most 32.
	Shards int `yaml:"shards"`
}

const defaultShards, maxShards = 4, 32

// Validate checks the names; each error names the key.
func (c Config) Validate() error {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`).MatchString(c.Name) {
		return fmt.Errorf("name: %.40q: wants 1 to 32 of a-z 0-9 and -", c.Name)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return fmt.Errorf("url: %.100q is not https://host/path without a password in it", c.URL)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("url: only a receiver on this machine may be written to without TLS")
	}
	if c.TokenFile != "" && c.Username != "" {
		return errors.New("token_file: either a token or username and password_file")
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		return errors.New("password_file: username and password_file go together")
	}
	if c.Shards < 0 || c.Shards > maxShards {
		return fmt.Errorf("shards: wants at most %d", maxShards)
	}
	return nil
}
