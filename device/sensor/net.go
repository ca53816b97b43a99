// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"bytes"
	"strings"

	"fulmar/device"
	"fulmar/schema"
)

// maxLinks bounds the network interfaces told apart; a board has a handful.
const maxLinks = 16

// link is one line of /proc/net/dev.
type link struct {
	name                string
	skip                bool
	rx, tx, errs, drops string // series
	rates               [4]rate
}

// Net tells for each real interface what goes through it and what is lost:
// net.eth0.rx_bytes_per_second, tx_..., errors_per_second, drops_per_second.
type Net struct {
	one
	root  device.Root
	lap   lap
	links []link
	count int
}

// NewNet reads /proc/net/dev.
func NewNet(root device.Root) *Net {
	return &Net{one: newOne(root, "net", "proc/net/dev"), root: root}
}

// Read implements [device.Sensor].
func (n *Net) Read(dst []device.Reading) []device.Reading {
	if b := n.read(); b != nil {
		dst = n.take(dst, b)
	}
	return dst
}

// take appends what the file's text tells.
func (n *Net) take(dst []device.Reading, b []byte) []device.Reading {
	secs := n.lap.seconds()
	for len(b) > 0 {
		var line []byte
		line, b = device.NextLine(b)
		name, c, ok := parseNetLine(line)
		if !ok {
			continue
		}
		k := n.link(name)
		if k == nil || k.skip {
			continue
		}
		for i, series := range [...]string{k.rx, k.tx, k.errs, k.drops} {
			if v, q, ok := k.rates[i].per(c[i], secs); ok {
				dst = device.Append(dst, series, v, q)
			}
		}
	}
	return dst
}

func (n *Net) link(name []byte) *link {
	for i := range n.links {
		if n.links[i].name == string(name) {
			return &n.links[i]
		}
	}
	if len(n.links) >= maxLines {
		return nil
	}
	k := link{name: string(name)}
	if k.skip = n.count >= maxLinks || !realLink(n.root, k.name); !k.skip {
		n.count++
		p := "net." + device.Name(k.name, 24)
		k.rx, k.tx = p+".rx_bytes_per_second", p+".tx_bytes_per_second"
		k.errs, k.drops = p+".errors_per_second", p+".drops_per_second"
	}
	n.links = append(n.links, k)
	return &n.links[len(n.links)-1]
}

// realLink tells interfaces with hardware behind them, and those that carry the
// name of one (in a container there is no device), from bridges and tunnels. Each
// packet of those passes a real one too.
func realLink(root device.Root, name string) bool {
	for _, p := range []string{"lo", "l4tbr", "rndis", "dummy", "ifb", "veth", "br-", "docker", "virbr"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	if root.Exists("sys/class/net/" + name + "/device") {
		return true
	}
	for _, p := range []string{"eth", "en", "wl", "ww", "can"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// parseNetLine reads "eth0: bytes packets errs drop fifo frame compressed
// multicast bytes packets errs drop ..." giving rx bytes, tx bytes, errors and
// drops of both ways. Old kernels put no blank after the colon.
func parseNetLine(line []byte) (name []byte, c [4]int64, ok bool) {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, c, false
	}
	name = device.TrimSpace(line[:i])
	if len(name) == 0 || len(name) > schema.MaxName {
		return nil, c, false
	}
	var v [12]int64
	rest := line[i+1:]
	for i := range v {
		if v[i], rest, ok = device.NextInt(rest); !ok || v[i] < 0 {
			return nil, c, false
		}
	}
	return name, [4]int64{v[0], v[8], v[2] + v[10], v[3] + v[11]}, true
}
