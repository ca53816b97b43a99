// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"context"
	"net"
	"sync"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/schema"
)

// Script is a broker that does what a test says, packet by packet, where no real
// broker would. It lets boards in, grants what they ask for, answers hello and pings,
// and acknowledges what it is sent, except as On says.
type Script struct {
	Hello schema.HelloAck // V and Conn are filled in
	// On is given each packet of a board and a way to write to it. With true the packet
	// is dealt with.
	On func(packet packets.ControlPacket, write func([]byte)) bool
}

// Dial connects a board over a pipe.
func (s *Script) Dial(context.Context) (net.Conn, error) {
	board, broker := net.Pipe()
	go s.serve(broker)
	return newLine(board), nil
}

func (s *Script) serve(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // a pipe
	// A pipe has no buffer, and a board does not read while it writes: answers wait here.
	out := make(chan []byte, 1<<12)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for b := range out {
			if _, err := conn.Write(b); err != nil {
				_ = conn.Close()
			}
		}
	}()
	defer wg.Wait()
	defer close(out)
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		if s.On != nil && s.On(p, func(b []byte) {
			if b == nil {
				_ = conn.Close()
				return
			}
			out <- b
		}) {
			continue
		}
		s.answer(p, out)
	}
}

// answer does what a broker does.
func (s *Script) answer(p packets.ControlPacket, out chan<- []byte) {
	switch p := p.(type) {
	case *packets.ConnectPacket:
		out <- []byte{0x20, 2, 0, 0}
	case *packets.SubscribePacket:
		b := []byte{0x90, byte(2 + len(p.Topics)), byte(p.MessageID >> 8), byte(p.MessageID)}
		for range p.Topics {
			b = append(b, 1)
		}
		out <- b
	case *packets.PingreqPacket:
		out <- []byte{0xd0, 0}
	case *packets.PublishPacket:
		out <- []byte{0x40, 2, byte(p.MessageID >> 8), byte(p.MessageID)}
		var h schema.Hello
		t, err := schema.ParseTopic(p.TopicName)
		if err != nil || t.Channel != schema.ChanHello || schema.Decode(p.Payload, &h) != nil {
			return
		}
		a := s.Hello
		a.V, a.Conn = schema.Version, h.Conn
		t.Channel = schema.ChanHelloAck
		if b, err := schema.Encode(&a); err == nil {
			out <- Publish(t.String(), b)
		}
	}
}

// Publish gives the bytes of a PUBLISH of QoS 0.
func Publish(topic string, payload []byte) []byte {
	n := 2 + len(topic) + len(payload)
	b := []byte{0x30}
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	b = append(b, byte(n), byte(len(topic)>>8), byte(len(topic)))
	return append(append(b, topic...), payload...)
}
