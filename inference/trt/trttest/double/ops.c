// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for what the GPU computes: each operator in float32, simple and exact.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

static db_cell *input(db_exec *x, const db_node *n, int i) { return i < n->inputs && n->in[i] >= 0 ? &x->cell[n->in[i]] : NULL; }

// steps gives how far one step along each axis of out goes in a tensor that is
// broadcast to it.
static void steps(const db_shape *in, const db_shape *out, int64_t *step) {
	int64_t run = 1;
	for (int i = out->n - 1; i >= 0; i--) {
		int k = in->n - out->n + i;
		step[i] = k < 0 || in->d[k] == 1 ? 0 : run;
		if (k >= 0) run *= in->d[k];
	}
}

// advance counts an index up like the digits of a number.
static void advance(const db_shape *s, int64_t *at) {
	for (int i = s->n - 1; i >= 0 && ++at[i] == s->d[i]; i--) at[i] = 0;
}

static int64_t place(const db_shape *s, const int64_t *at, const int64_t *step) {
	int64_t p = 0;
	for (int i = 0; i < s->n; i++) p += at[i] * step[i];
	return p;
}

static float two(int op, float a, float b) { return op == OP_Mul ? a * b : op == OP_Add ? a + b : a - b; }
static int64_t two_whole(int op, int64_t x, int64_t y) {
	uint64_t a = (uint64_t)x, b = (uint64_t)y; // wraps round, as int64 does there
	return (int64_t)(op == OP_Mul ? a * b : op == OP_Add ? a + b : a - b);
}

static void binary(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *a = input(x, n, 0), *b = input(x, n, 1);
	int64_t count = db_count(&out->shape), at[DB_DIMS] = {0}, sa[DB_DIMS], sb[DB_DIMS];
	if (out->held == DB_FLOAT && db_count(&a->shape) == count && db_count(&b->shape) == count) {
		const float *p = a->data, *q = b->data;
		float *o = out->data;
		for (int64_t i = 0; i < count; i++) o[i] = two(n->op, p[i], q[i]);
		return;
	}
	steps(&a->shape, &out->shape, sa);
	steps(&b->shape, &out->shape, sb);
	for (int64_t i = 0; i < count; i++, advance(&out->shape, at)) {
		int64_t p = place(&out->shape, at, sa), q = place(&out->shape, at, sb);
		if (out->held == DB_FLOAT) ((float *)out->data)[i] = two(n->op, ((float *)a->data)[p], ((float *)b->data)[q]);
		else ((int64_t *)out->data)[i] = two_whole(n->op, ((int64_t *)a->data)[p], ((int64_t *)b->data)[q]);
	}
}

typedef struct {
	int64_t kh, kw, sh, sw, dh, dw, top, left; // kernel, strides, dilations, pads
	int64_t h, w, oh, ow;
} frame;

static frame frame_of(const db_node *n, const db_shape *in, const db_shape *out, int64_t kh, int64_t kw) {
	int64_t pads[4] = {0}, strides[2] = {1, 1}, dilations[2] = {1, 1};
	db_attr_ints(n, "pads", pads, 4);
	db_attr_ints(n, "strides", strides, 2);
	db_attr_ints(n, "dilations", dilations, 2);
	return (frame){kh, kw, strides[0], strides[1], dilations[0], dilations[1], pads[0], pads[1], in->d[2], in->d[3], out->d[2], out->d[3]};
}

// columns gives the range of output columns whose input column lies in the picture.
static void columns(const frame *f, int64_t shift, int64_t *from, int64_t *to) {
	*from = shift < 0 ? (-shift + f->sw - 1) / f->sw : 0;
	*to = shift >= f->w ? 0 : (f->w - 1 - shift) / f->sw + 1;
	if (*to > f->ow) *to = f->ow;
}

// plane adds one input plane times one kernel to an output plane.
static void plane(const frame *f, const float *in, const float *k, float *out) {
	for (int64_t ky = 0; ky < f->kh; ky++)
		for (int64_t kx = 0; kx < f->kw; kx++) {
			float w = k[ky * f->kw + kx];
			int64_t shift = kx * f->dw - f->left, from, to;
			columns(f, shift, &from, &to);
			for (int64_t y = 0; y < f->oh; y++) {
				int64_t iy = y * f->sh + ky * f->dh - f->top;
				if (iy < 0 || iy >= f->h) continue;
				float *o = out + y * f->ow;
				const float *i = in + iy * f->w + shift;
				if (f->sw == 1)
					for (int64_t c = from; c < to; c++) o[c] += w * i[c];
				else
					for (int64_t c = from; c < to; c++) o[c] += w * i[c * f->sw];
			}
		}
}

static void conv(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0), *w = input(x, n, 1), *bias = input(x, n, 2);
	const db_shape *ws = &w->shape;
	frame f = frame_of(n, &in->shape, &out->shape, ws->d[2], ws->d[3]);
	int64_t each = ws->d[0] / db_attr_int(n, "group", 1), in_plane = f.h * f.w, out_plane = f.oh * f.ow, kernel = f.kh * f.kw;
	for (int64_t b = 0; b < out->shape.d[0]; b++)
		for (int64_t m = 0; m < ws->d[0]; m++) {
			float *o = (float *)out->data + (b * ws->d[0] + m) * out_plane;
			float start = bias ? ((float *)bias->data)[m] : 0;
			for (int64_t i = 0; i < out_plane; i++) o[i] = start;
			for (int64_t c = 0; c < ws->d[1]; c++)
				plane(&f, (float *)in->data + (b * in->shape.d[1] + m / each * ws->d[1] + c) * in_plane, (float *)w->data + (m * ws->d[1] + c) * kernel, o);
		}
}

static void pool(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0);
	int64_t k[2];
	db_attr_ints(n, "kernel_shape", k, 2);
	frame f = frame_of(n, &in->shape, &out->shape, k[0], k[1]);
	for (int64_t p = 0; p < out->shape.d[0] * out->shape.d[1]; p++) {
		const float *i = (float *)in->data + p * f.h * f.w;
		float *o = (float *)out->data + p * f.oh * f.ow;
		for (int64_t c = 0; c < f.oh * f.ow; c++) o[c] = -INFINITY;
		for (int64_t ky = 0; ky < f.kh; ky++)
			for (int64_t kx = 0; kx < f.kw; kx++) {
				int64_t shift = kx * f.dw - f.left, from, to;
				columns(&f, shift, &from, &to);
				for (int64_t y = 0; y < f.oh; y++) {
					int64_t iy = y * f.sh + ky * f.dh - f.top;
					if (iy < 0 || iy >= f.h) continue;
					for (int64_t c = from; c < to; c++) {
						float v = i[iy * f.w + c * f.sw + shift];
						if (v > o[y * f.ow + c]) o[y * f.ow + c] = v;
					}
				}
			}
	}
}

static size_t size_of(const db_cell *c) { return c->held == DB_INT ? 8 : 4; }

static void concat(db_exec *x, const db_node *n, db_cell *out) {
	int64_t axis = db_attr_int(n, "axis", 0), outer = 1, inner = (int64_t)size_of(out), at = 0;
	if (axis < 0) axis += out->shape.n;
	for (int i = 0; i < axis; i++) outer *= out->shape.d[i];
	for (int i = (int)axis + 1; i < out->shape.n; i++) inner *= out->shape.d[i];
	int64_t row = out->shape.d[axis] * inner;
	for (int k = 0; k < n->inputs; k++) {
		db_cell *c = input(x, n, k);
		int64_t part = c->shape.d[axis] * inner;
		for (int64_t o = 0; o < outer; o++) memcpy((char *)out->data + o * row + at, (char *)c->data + o * part, (size_t)part);
		at += part;
	}
}

// gather copies the element at start + sum of at*step for each place of out.
static void gather(const db_cell *in, db_cell *out, int64_t start, const int64_t *step) {
	int64_t count = db_count(&out->shape), at[DB_DIMS] = {0};
	for (int64_t i = 0; i < count; i++, advance(&out->shape, at)) {
		int64_t p = start + place(&out->shape, at, step);
		if (out->held == DB_INT) ((int64_t *)out->data)[i] = ((int64_t *)in->data)[p];
		else ((float *)out->data)[i] = ((float *)in->data)[p];
	}
}

static void slice(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0), *starts = input(x, n, 1), *axes = input(x, n, 3), *by = input(x, n, 4);
	int64_t step[DB_DIMS], start = 0;
	steps(&in->shape, &in->shape, step);
	int64_t own[DB_DIMS], run = 1; // steps leaves 0 where a dimension is 1
	for (int i = in->shape.n - 1; i >= 0; i--) own[i] = run, run *= in->shape.d[i];
	for (int64_t i = 0; i < db_count(&starts->shape); i++) {
		int64_t a = axes ? ((int64_t *)axes->data)[i] : i, s = ((int64_t *)starts->data)[i];
		if (a < 0) a += in->shape.n;
		int64_t d = in->shape.d[a];
		if (s < 0) s += d;
		s = s < 0 ? 0 : s > d ? d : s;
		start += s * own[a];
		if (by) step[a] *= ((int64_t *)by->data)[i];
	}
	gather(in, out, start, step);
}

static void resize(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0), *scales = input(x, n, n->inputs == 2 ? 1 : 2), *sizes = input(x, n, 3);
	// As the shape was made: by sizes if they fit, or by scales.
	bool given = !(sizes && sizes->known && sizes->held == DB_INT && db_count(&sizes->shape) == out->shape.n);
	int64_t count = db_count(&out->shape), at[DB_DIMS] = {0}, step[DB_DIMS];
	steps(&in->shape, &in->shape, step);
	for (int64_t i = 0; i < count; i++, advance(&out->shape, at)) {
		int64_t from = 0;
		for (int d = 0; d < out->shape.n; d++) {
			float scale = given ? ((float *)scales->data)[d] : (float)out->shape.d[d] / (float)in->shape.d[d];
			int64_t k = (int64_t)floorf((float)at[d] / scale);
			from += (k < in->shape.d[d] ? k : in->shape.d[d] - 1) * step[d];
		}
		((float *)out->data)[i] = ((float *)in->data)[from];
	}
}

static void transpose(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0);
	int64_t perm[DB_DIMS], step[DB_DIMS], own[DB_DIMS];
	db_attr_ints(n, "perm", perm, DB_DIMS);
	steps(&in->shape, &in->shape, own);
	for (int i = 0; i < out->shape.n; i++) step[i] = own[perm[i]];
	gather(in, out, 0, step);
}

static void reduce(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0);
	int64_t axes[DB_DIMS], own[DB_DIMS], at[DB_DIMS] = {0};
	int count = db_attr_ints(n, "axes", axes, DB_DIMS);
	// Where each element of the input goes: steps of the output with 0 for axes that go.
	db_shape kept = in->shape;
	for (int i = 0; i < in->shape.n; i++)
		if (count <= 0) kept.d[i] = 1;
	for (int i = 0; i < count; i++) kept.d[axes[i] < 0 ? axes[i] + in->shape.n : axes[i]] = 1;
	steps(&kept, &in->shape, own);
	float *o = out->data;
	for (int64_t i = 0; i < db_count(&out->shape); i++) o[i] = -INFINITY;
	for (int64_t i = 0; i < db_count(&in->shape); i++, advance(&in->shape, at)) {
		int64_t p = place(&in->shape, at, own);
		float v = ((float *)in->data)[i];
		if (v > o[p]) o[p] = v;
	}
}

static void quant(db_exec *x, const db_node *n, db_cell *out) {
	db_cell *in = input(x, n, 0), *scale = input(x, n, 1), *zero = input(x, n, 2);
	int64_t k = db_count(&scale->shape), axis = db_attr_int(n, "axis", 1), inner = 1, count = db_count(&out->shape);
	if (axis < 0) axis += out->shape.n;
	for (int i = (int)axis + 1; k > 1 && i < out->shape.n; i++) inner *= out->shape.d[i];
	// INT8 and UINT8 are told apart by the zero point, which is UINT8 if left out.
	bool is_signed = zero && x->g->value[n->in[2]].elem == ONNX_INT8;
	float low = is_signed ? -128 : 0, high = is_signed ? 127 : 255;
	const float *p = in->data;
	float *o = out->data;
	for (int64_t i = 0; i < count; i++) {
		int64_t c = k == 1 ? 0 : i / inner % k;
		float s = ((float *)scale->data)[c], z = zero ? ((float *)zero->data)[c] : 0;
		if (n->op == OP_DequantizeLinear) {
			o[i] = (p[i] - z) * s;
			continue;
		}
		float q = nearbyintf(p[i] / s) + z;
		o[i] = q < low ? low : q > high ? high : q;
	}
}

void db_op_run(db_exec *x, const db_node *n) {
	db_cell *out = &x->cell[n->out], *in = input(x, n, 0);
	int64_t count = db_count(&out->shape);
	switch (n->op) {
	case OP_Mul: case OP_Add: case OP_Sub: binary(x, n, out); return;
	case OP_Conv: conv(x, n, out); return;
	case OP_MaxPool: pool(x, n, out); return;
	case OP_Concat: concat(x, n, out); return;
	case OP_Slice: slice(x, n, out); return;
	case OP_Resize: resize(x, n, out); return;
	case OP_Transpose: transpose(x, n, out); return;
	case OP_ReduceMax: reduce(x, n, out); return;
	case OP_QuantizeLinear: case OP_DequantizeLinear: quant(x, n, out); return;
	case OP_Reshape: memcpy(out->data, in->data, (size_t)count * size_of(out)); return;
	}
	const float *p = in->data;
	float *o = out->data;
	for (int64_t i = 0; i < count; i++)
		o[i] = n->op == OP_Relu ? (p[i] < 0 ? 0 : p[i]) : 1 / (1 + expf(-p[i]));
}

// rooms takes memory for all values between layers, at the first run.
static void rooms(db_exec *x) {
	for (int i = 0; i < x->g->nodes; i++) {
		db_cell *c = &x->cell[x->g->node[i].out];
		if (c->data) continue;
		c->data = db_alloc((size_t)db_count(&c->shape) * size_of(c));
		c->owned = true;
	}
	x->ready = true;
}

void db_exec_run(db_exec *x, void *const *in, void *const *out) {
	const db_graph *g = x->g;
	if (!x->ready) rooms(x);
	for (int i = 0; i < g->inputs; i++) x->cell[g->in[i]].data = in[i];
	for (int i = 0; i < g->nodes; i++)
		if (!x->cell[g->node[i].out].known) db_op_run(x, &g->node[i]);
	for (int i = 0; i < g->outputs; i++) {
		const db_cell *c = &x->cell[g->out[i]];
		memcpy(out[i], c->data, (size_t)db_count(&c->shape) * size_of(c));
	}
}
