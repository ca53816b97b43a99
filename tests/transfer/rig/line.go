// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/schema"
	"fulmar/schema/ota"
)

// Line is a small MQTT client of one board: what the fetcher needs of a link.
type Line struct {
	board string
	conn  net.Conn
	take  func(*ota.Down)
	lost  chan struct{}
	heard chan struct{} // closed when hello was answered

	mu      sync.Mutex
	id      uint16
	waiting map[uint16]chan []byte
}

// Line connects a board. take is given each word on its objects.
func (f *Fleet) Line(ctx context.Context, board string, take func(*ota.Down)) (*Line, error) {
	dial, err := f.Dial(board)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	l := &Line{board: board, conn: conn, take: take, lost: make(chan struct{}), heard: make(chan struct{}), waiting: map[uint16]chan []byte{}}
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier, c.Keepalive = "MQTT", 4, true, board, 300
	r := bufio.NewReaderSize(conn, 4<<10)
	if err := l.write(c); err != nil {
		return nil, err
	}
	if _, err := packets.ReadPacket(r); err != nil {
		return nil, err
	}
	go l.read(r)
	if err := l.subscribe(ctx, schema.Topic{Tenant: Tenant, Board: board, Channel: schema.ChanPiece}.String(), 1); err != nil {
		return nil, err
	}
	if err := l.subscribe(ctx, schema.Topic{Tenant: Tenant, Board: board, Channel: schema.ChanHelloAck}.String(), 1); err != nil {
		return nil, err
	}
	hello, err := schema.Encode(&schema.Hello{V: 1, Board: board, Release: "rig", Conn: 1, Now: schema.Time{Boot: 7}})
	if err != nil {
		return nil, err
	}
	return l, l.Hello(ctx, hello)
}

// Hello says hello until the fleet lets the board in.
func (l *Line) Hello(ctx context.Context, hello []byte) error {
	if err := l.Send(ctx, schema.ChanHello, "", hello); err != nil {
		return err
	}
	select {
	case <-l.heard:
		return nil
	case <-l.lost:
		return errors.New("the fleet hung up")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Line) write(p packets.ControlPacket) error {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.conn.Write(b.Bytes())
	return err
}

// ask writes a packet that is answered.
func (l *Line) ask(ctx context.Context, packet func(id uint16) packets.ControlPacket) ([]byte, error) {
	ch := make(chan []byte, 1)
	l.mu.Lock()
	if l.id++; l.id == 0 {
		l.id = 1
	}
	id := l.id
	l.waiting[id] = ch
	l.mu.Unlock()
	if err := l.write(packet(id)); err != nil {
		return nil, err
	}
	select {
	case codes := <-ch:
		return codes, nil
	case <-l.lost:
		return nil, errors.New("the connection ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *Line) subscribe(ctx context.Context, topic string, qos byte) error {
	codes, err := l.ask(ctx, func(id uint16) packets.ControlPacket {
		s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		s.MessageID, s.Topics, s.Qoss = id, []string{topic}, []byte{qos}
		return s
	})
	if err == nil && (len(codes) != 1 || codes[0] > 1) {
		err = fmt.Errorf("the gateway refuses %s", topic)
	}
	return err
}

// Send implements fetch.Line.
func (l *Line) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	_, err := l.ask(ctx, func(id uint16) packets.ControlPacket {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.Qos, p.MessageID, p.Payload = 1, id, payload
		p.TopicName = schema.Topic{Tenant: Tenant, Board: l.board, Channel: ch, Tail: tail}.String()
		return p
	})
	return err
}

// Hear implements fetch.Line.
func (l *Line) Hear(ctx context.Context, tree string) (<-chan struct{}, error) {
	return l.lost, l.subscribe(ctx, schema.ObjectTopic(Tenant, tree), 0)
}

// Leave implements fetch.Line.
func (l *Line) Leave(ctx context.Context, tree string) error {
	_, err := l.ask(ctx, func(id uint16) packets.ControlPacket {
		u := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
		u.MessageID, u.Topics = id, []string{schema.ObjectTopic(Tenant, tree)}
		return u
	})
	return err
}

// Close hangs up.
func (l *Line) Close() { _ = l.conn.Close() }

func (l *Line) read(r *bufio.Reader) {
	defer close(l.lost)
	for {
		p, err := packets.ReadPacket(r)
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *packets.SubackPacket:
			l.answered(p.MessageID, p.ReturnCodes)
		case *packets.UnsubackPacket:
			l.answered(p.MessageID, nil)
		case *packets.PubackPacket:
			l.answered(p.MessageID, nil)
		case *packets.PublishPacket:
			l.heardOf(p)
		}
	}
}

func (l *Line) answered(id uint16, codes []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch := l.waiting[id]; ch != nil {
		ch <- codes
		delete(l.waiting, id)
	}
}

func (l *Line) heardOf(p *packets.PublishPacket) {
	if p.Qos == 1 {
		a := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		a.MessageID = p.MessageID
		_ = l.write(a)
	}
	if t, err := schema.ParseTopic(p.TopicName); err == nil && t.Channel == schema.ChanHelloAck {
		var a schema.HelloAck
		if schema.Decode(p.Payload, &a) == nil && a.RetryAfterMs > 0 {
			hello, _ := schema.Encode(&schema.Hello{V: 1, Board: l.board, Release: "rig", Conn: 1, Now: schema.Time{Boot: 7}})
			time.AfterFunc(time.Duration(a.RetryAfterMs)*time.Millisecond, func() { _ = l.Send(context.Background(), schema.ChanHello, "", hello) })
			return
		}
		select {
		case <-l.heard:
		default:
			close(l.heard)
		}
		return
	}
	d := new(ota.Down)
	if schema.Decode(p.Payload, d) == nil {
		l.take(d)
	}
}
