// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is an MQTT 3.1.1 client for one simulated board: small, without any memory
// of what it sent, and with one goroutine beside its caller's.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	connectTimeout = 15 * time.Second
	writeTimeout   = 30 * time.Second
	keepAlive      = 60 * time.Second // Ping has to be called within it
	readBuffer     = 512              // bytes; what the fleet says to a board is small
	inbound        = 32               // packets read and not yet looked at
)

// Line is one connection. Its methods belong to one goroutine.
type Line struct {
	// In has what comes: PUBACK and PUBLISH mostly. It is closed when the connection has
	// ended.
	In chan packets.ControlPacket

	conn *tls.Conn
	done chan struct{} // closed by Cut
	id   uint16        // of the last packet that wants an answer
}

// Config says who connects to what.
type Config struct {
	Dialer    *net.Dialer
	Address   string // host:port
	TLS       *tls.Config
	Client    string // MQTT client identifier
	Will      string // topic, with QoS 1
	WillSays  []byte
	Subscribe []string // filters, with QoS 1
}

// Dial connects and subscribes.
func Dial(ctx context.Context, cfg Config) (_ *Line, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := cfg.Dialer.DialContext(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = raw.Close()
		}
	}()
	l := &Line{conn: tls.Client(raw, cfg.TLS), In: make(chan packets.ControlPacket, inbound), done: make(chan struct{})}
	if err := l.conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	_ = l.conn.SetDeadline(time.Now().Add(connectTimeout))
	r := bufio.NewReaderSize(l.conn, readBuffer)
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession = "MQTT", 4, true
	c.ClientIdentifier, c.Keepalive = cfg.Client, uint16(keepAlive/time.Second)
	c.WillFlag, c.WillQos, c.WillTopic, c.WillMessage = true, 1, cfg.Will, cfg.WillSays
	if err := l.write(c); err != nil {
		return nil, err
	}
	ack, err := packets.ReadPacket(r)
	if err != nil {
		return nil, err
	}
	if a, ok := ack.(*packets.ConnackPacket); !ok || a.ReturnCode != packets.Accepted {
		return nil, fmt.Errorf("the gateway answers CONNECT with %s", ack)
	}
	s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	s.MessageID, s.Topics, s.Qoss = l.next(), cfg.Subscribe, bytes.Repeat([]byte{1}, len(cfg.Subscribe))
	if err := l.write(s); err != nil {
		return nil, err
	}
	if ack, err = packets.ReadPacket(r); err != nil {
		return nil, err
	}
	if a, ok := ack.(*packets.SubackPacket); !ok || len(a.ReturnCodes) != len(cfg.Subscribe) || slices.Max(a.ReturnCodes) > 1 {
		return nil, fmt.Errorf("the gateway answers SUBSCRIBE with %s", ack)
	}
	_ = l.conn.SetDeadline(time.Time{})
	go l.read(r)
	return l, nil
}

// next gives the number of the next packet; 0 is none.
func (l *Line) next() uint16 {
	if l.id++; l.id == 0 {
		l.id = 1
	}
	return l.id
}

// write sends a packet in one piece.
func (l *Line) write(p packets.ControlPacket) error {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := l.conn.Write(b.Bytes())
	return err
}

// Publish sends a payload with QoS 1, and gives the number that its PUBACK will have.
func (l *Line) Publish(topic string, payload []byte) (uint16, error) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.TopicName, p.Payload, p.MessageID = 1, topic, payload, l.next()
	return p.MessageID, l.write(p)
}

// Ping asks for a sign of life. That the connection has ended is seen by In.
func (l *Line) Ping() { _ = l.write(packets.NewControlPacket(packets.Pingreq)) }

// Ack answers a PUBLISH with QoS 1.
func (l *Line) Ack(id uint16) {
	p := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	p.MessageID = id
	_ = l.write(p)
}

// read hands on what comes until the connection ends.
func (l *Line) read(r *bufio.Reader) {
	defer close(l.In)
	for {
		p, err := packets.ReadPacket(r)
		if err != nil {
			return
		}
		select {
		case l.In <- p:
		case <-l.done:
			return
		}
	}
}

// Cut ends the connection without a word.
func (l *Line) Cut() {
	close(l.done)
	_ = l.conn.NetConn().Close()
}

// Bye ends the connection in order.
func (l *Line) Bye() {
	_ = l.write(packets.NewControlPacket(packets.Disconnect))
	l.Cut()
}
