// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		series, board bool
	}{
		{name: "a", series: true, board: true},
		{name: "0", series: true, board: true},
		{name: "dock-1_a.b", series: true, board: true},
		{name: letters(MaxName), series: true, board: true},
		{name: "camera/cam0", series: true},
		{name: "a//b", series: true}, // one name, never a path
		{name: ""},
		{name: letters(MaxName + 1)},
		{name: "."},
		{name: ".."},
		{name: "../a"},
		{name: "-a"},
		{name: "_a"},
		{name: "/a"},
		{name: "A"},
		{name: "a b"},
		{name: "a\n"},
		{name: "a\x00"},
		{name: "ä"},
		{name: "a+"},
		{name: "#"},
		{name: "$sys"},
		{name: "a\\b"},
	} {
		if err := CheckName(c.name); (err == nil) != c.series {
			t.Errorf("series %q: %v", c.name, err)
		}
		for what, check := range map[string]func(string) error{"board": CheckBoard, "blob": CheckBlobName} {
			if err := check(c.name); (err == nil) != c.board {
				t.Errorf("%s %q: %v", what, c.name, err)
			}
		}
	}
	if err := CheckName(strings.Repeat("x", 1<<20)); err == nil || len(err.Error()) > 200 {
		t.Error("the error repeats a megabyte of the name, or there is none")
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	for _, c := range Classes() {
		topic := MessageTopic("acme", "dock-1", c)
		back, err := ParseTopic(topic.String())
		if err != nil || back != topic {
			t.Errorf("%s: %+v, %v", topic, back, err)
		}
		if !strings.HasPrefix(topic.String(), BoardPrefix("acme", "dock-1")) {
			t.Errorf("%s does not begin with the board's prefix", topic)
		}
		if p, err := ParseClass(c.String()); err != nil || p != c {
			t.Errorf("class %s: %v, %v", c, p, err)
		}
	}
	for _, ch := range []Channel{ChanPresence, ChanHello, ChanHelloAck, ChanAck} {
		topic := Topic{Tenant: "acme", Board: "dock-1", Channel: ch}
		if back, err := ParseTopic(topic.String()); err != nil || back != topic {
			t.Errorf("%s: %+v, %v", topic, back, err)
		}
	}
	for _, bad := range []string{
		"", "f", "f/v1", "f/v1/acme", "f/v1/acme/dock-1", "f/v1/acme/dock-1/", "f/v2/acme/dock-1/st", "x/v1/acme/dock-1/st",
		"f/v1//dock-1/st", "f/v1/acme//st", "f/v1/ACME/dock-1/st", "f/v1/+/dock-1/st", "f/v1/acme/#", "f/v1/acme/dock-1/st/x",
		"f/v1/acme/dock-1/t/", "f/v1/acme/dock-1/e/a/b", "f/v1/acme/dock-1/blob/../x", "f/v1/acme/dock-1/e", "f/v1/acme/dock-1/nope",
		"f/v1/acme/dock-1/hello/", "f/v1/acme/dock-1/hello/ack/x", "f/v1/acme/dock-1/t/" + letters(MaxName+1), strings.Repeat("f/v1/", 1<<16),
	} {
		if got, err := ParseTopic(bad); err == nil {
			t.Errorf("%.60q was read as %+v", bad, got)
		}
	}
	if _, err := ParseClass("class-9"); err == nil {
		t.Error("an unknown class was read")
	}
}

// TestWordsAreAppendOnly: the numbers of what is on the wire and on disk, and the
// words under which logs, metrics and folders know them.
func TestWordsAreAppendOnly(t *testing.T) {
	t.Parallel()
	type word interface{ String() string }
	for want, v := range map[string]word{
		"alarm": Class(0), "event": Class(1), "metric": Class(2), "snapshot": Class(3), "class-4": Class(4),
		"samples": Kind(1), "gap": Kind(3), "report": Kind(5), "anchor": Kind(6), "kind-0": Kind(0), "kind-7": Kind(7),
		"puback": AckMode(0), "fleet": AckMode(1), "broker": AckMode(2), "ack-mode-3": AckMode(3),
		"good": Quality(0), "offline": Quality(1), "error": Quality(2), "stale": Quality(3), "quality-4": Quality(4),
		"crash": Reason(1), "quota": Reason(2), "disk full": Reason(3), "corrupt": Reason(4), "too large": Reason(5),
		"picture evicted": Reason(6), "thinned": Reason(7), "disk failed": Reason(8), "refused by the broker": Reason(9), "key lost": Reason(10),
		"unreadable": Reason(11), "acknowledged, not here": Reason(12), "expired": Reason(13), "reason-14": Reason(14),
	} {
		if got := v.String(); got != want {
			t.Errorf("%T %v is now called %q, was %q", v, v, got, want)
		}
	}
	if Kind(2).String() != "event" || Kind(4).String() != "snapshot" {
		t.Error("the kinds event and snapshot have new numbers")
	}
	id := ID{Board: "dock-1", Class: ClassEvent, Epoch: 0xff, Seq: 7}
	if id.String() != "dock-1/event/00000000000000ff/7" {
		t.Errorf("an id is now written %s", id)
	}
}

// TestClock: Mono runs with time since boot, whatever the wall clock says.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(9, time.Hour)
		a := c.Now()
		time.Sleep(90 * time.Second)
		b := c.Now()
		if a.Boot != 9 || c.Boot() != 9 || a.Mono != int64(time.Hour) || b.Mono-a.Mono != int64(90*time.Second) || b.Wall-a.Wall != 90_000 {
			t.Errorf("%+v, 90 s later %+v", a, b)
		}
	})
}
