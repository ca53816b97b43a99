// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields, from opentelemetry-proto 1.x, trace/v1/trace.proto.
const (
	requestSpans = 1 // ExportTraceServiceRequest.resource_spans

	resourceSpansResource, resourceSpansScopes = 1, 2
	resourceAttributes                         = 1
	scopeSpansScope, scopeSpansSpans           = 1, 2
	scopeName                                  = 1

	spanTrace, spanID, spanParent, spanName, spanKind = 1, 2, 4, 5, 6
	spanStart, spanEnd, spanAttributes                = 7, 8, 9

	attributeKey, attributeValue     = 1, 2
	valueString, valueBool, valueInt = 1, 2, 3

	kindInternal = 1
)

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func text(b []byte, field protowire.Number, s string) []byte { return message(b, field, []byte(s)) }

func number(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func moment(b []byte, field protowire.Number, us int64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(us)*1000)
}

// attribute appends a KeyValue; the value is a string, a bool or an int.
func attribute(b []byte, field protowire.Number, key string, v any) []byte {
	var value []byte
	switch v := v.(type) {
	case string:
		value = text(nil, valueString, v)
	case bool:
		value = number(nil, valueBool, protowire.EncodeBool(v))
	case int:
		value = number(nil, valueInt, uint64(v))
	}
	return message(b, field, message(text(nil, attributeKey, key), attributeValue, value))
}

// encode gives an ExportTraceServiceRequest: a resource for each board.
func encode(spans []span) []byte {
	type board struct{ tenant, name string }
	groups := map[board][]byte{}
	var order []board
	for i := range spans {
		s := &spans[i]
		k := board{s.tenant, s.id.Board}
		if groups[k] == nil {
			order = append(order, k)
			groups[k] = message(nil, scopeSpansScope, text(nil, scopeName, "fulmar"))
		}
		groups[k] = appendWay(groups[k], s)
	}
	var out []byte
	for _, k := range order {
		var res []byte
		for _, a := range [][2]string{{"service.name", "fulmard"}, {"service.namespace", k.tenant}, {"service.instance.id", k.name}} {
			res = attribute(res, resourceAttributes, a[0], a[1])
		}
		rs := message(nil, resourceSpansResource, res)
		out = message(out, requestSpans, message(rs, resourceSpansScopes, groups[k]))
	}
	return out
}

// appendWay appends the spans of one event: detection, and in it inference and delivery.
func appendWay(dst []byte, s *span) []byte {
	begin, end := s.at*1000, s.arrived*1000 // µs
	end = max(end, begin+s.latency)
	seen := begin + s.latency
	root := sub(s.trace, 0)
	head := func(id [8]byte, name string, from, to int64) []byte {
		b := message(nil, spanTrace, s.trace[:])
		b = message(b, spanID, id[:])
		if id != root {
			b = message(b, spanParent, root[:])
		}
		b = number(text(b, spanName, name), spanKind, kindInternal)
		return moment(moment(b, spanStart, from), spanEnd, to)
	}
	whole := head(root, "detection", begin, end)
	whole = attribute(whole, spanAttributes, "fulmar.record", s.id.String())
	whole = attribute(whole, spanAttributes, "fulmar.camera", s.source)
	whole = attribute(whole, spanAttributes, "fulmar.boxes", s.boxes)
	whole = attribute(whole, spanAttributes, "fulmar.replayed", s.replayed)
	whole = attribute(whole, spanAttributes, "fulmar.time_settled", s.good)
	dst = message(dst, scopeSpansSpans, whole)
	if s.latency > 0 {
		inference := head(sub(s.trace, 1), "capture to detections", begin, seen)
		inference = attribute(inference, spanAttributes, "fulmar.model", s.model)
		inference = attribute(inference, spanAttributes, "fulmar.engine", s.engine)
		dst = message(dst, scopeSpansSpans, inference)
	}
	return message(dst, scopeSpansSpans, head(sub(s.trace, 2), "detections to ledger", seen, end))
}

// sub gives the id of the n-th span of a trace; never zero but by a chance of 2^-64.
func sub(trace [16]byte, n uint64) (id [8]byte) {
	binary.BigEndian.PutUint64(id[:], binary.BigEndian.Uint64(trace[:8])+n)
	return id
}
