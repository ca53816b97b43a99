// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package format

import "encoding/binary"

// Add adds differences to words of width bytes, in place. planes[k] holds byte k of
// each word's difference; bytes of b behind the last whole word have theirs at the end
// of planes[0].
//
// A difference of more than one byte is taken modulo the word and folded so that small
// ones of either sign have zeros in their upper bytes: 0, -1, 1, -2 become 0, 1, 2, 3.
// Weights of FP16 and FP32 are taken for integers: two floats of one sign that are
// near each other are so as integers, too.
func Add(b []byte, width int, planes [][]byte) {
	words := len(b) / width
	switch width {
	case 1:
		for i, d := range planes[0][:words] {
			b[i] += d
		}
	case 2:
		lo, hi := planes[0], planes[1]
		for i := range words {
			d := uint16(lo[i]) | uint16(hi[i])<<8
			d = d>>1 ^ -(d & 1)
			binary.LittleEndian.PutUint16(b[2*i:], binary.LittleEndian.Uint16(b[2*i:])+d)
		}
	case 4:
		for i := range words {
			d := uint32(planes[0][i]) | uint32(planes[1][i])<<8 | uint32(planes[2][i])<<16 | uint32(planes[3][i])<<24
			d = d>>1 ^ -(d & 1)
			binary.LittleEndian.PutUint32(b[4*i:], binary.LittleEndian.Uint32(b[4*i:])+d)
		}
	}
	for i, v := range b[words*width:] {
		b[words*width+i] = v + planes[0][words+i]
	}
}

// Sub appends to planes what Add needs to make b of pred, which is as long.
func Sub(planes [][]byte, b, pred []byte, width int) {
	words := len(b) / width
	switch width {
	case 1:
		for i := range words {
			planes[0] = append(planes[0], b[i]-pred[i])
		}
	case 2:
		for i := 0; i < 2*words; i += 2 {
			d := binary.LittleEndian.Uint16(b[i:]) - binary.LittleEndian.Uint16(pred[i:])
			d = d<<1 ^ -(d >> 15)
			planes[0], planes[1] = append(planes[0], byte(d)), append(planes[1], byte(d>>8))
		}
	case 4:
		for i := 0; i < 4*words; i += 4 {
			d := binary.LittleEndian.Uint32(b[i:]) - binary.LittleEndian.Uint32(pred[i:])
			d = d<<1 ^ -(d >> 31)
			for k := range planes {
				planes[k] = append(planes[k], byte(d>>(8*k)))
			}
		}
	}
	for i := words * width; i < len(b); i++ {
		planes[0] = append(planes[0], b[i]-pred[i])
	}
}
