// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for the shape rules of TensorRT's layers: what each operator makes of its
// inputs' shapes, and a network laid out for given inputs.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

static const char *const names[OPS] = {"Mul", "Add", "Sub", "Relu", "Sigmoid", "Conv", "MaxPool", "Concat", "Slice", "Resize", "Reshape", "Transpose", "Constant",
	"Shape", "ReduceMax", "QuantizeLinear", "DequantizeLinear"};

int db_op_number(const char *type) {
	for (int i = 0; i < OPS; i++)
		if (strcmp(names[i], type) == 0) return i;
	return -1;
}

static bool fail(const db_node *n, db_fault *fault, const char *what) {
	snprintf(fault->text, sizeof fault->text, "%s node %d %.80s: %s", n->type, n->index, n->name, what);
	fault->node = n->index;
	return false;
}

static db_cell *input(db_exec *x, const db_node *n, int i) { return i < n->inputs && n->in[i] >= 0 ? &x->cell[n->in[i]] : NULL; }

// whole gives the integers of an input that has to be known beforehand.
static const int64_t *whole(db_exec *x, const db_node *n, int i, int *count) {
	db_cell *c = input(x, n, i);
	if (!c || !c->known || c->held != DB_INT) return NULL;
	*count = (int)db_count(&c->shape);
	return c->data;
}

static bool broadcast(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *a = input(x, n, 0), *b = input(x, n, 1);
	if (!a || !b || a->held != b->held) return fail(n, fault, "wants two inputs of one type");
	out->n = a->shape.n > b->shape.n ? a->shape.n : b->shape.n;
	for (int i = 0; i < out->n; i++) {
		int ai = a->shape.n - out->n + i, bi = b->shape.n - out->n + i;
		int64_t ad = ai < 0 ? 1 : a->shape.d[ai], bd = bi < 0 ? 1 : b->shape.d[bi];
		if (ad != bd && ad != 1 && bd != 1) return fail(n, fault, "the inputs' shapes do not fit each other");
		out->d[i] = ad == 1 ? bd : ad;
	}
	return true;
}

// window is what Conv and MaxPool have in common, over two dimensions.
static bool window(const db_node *n, const db_shape *in, int64_t kh, int64_t kw, db_shape *out, db_fault *fault) {
	int64_t pads[4] = {0}, strides[2] = {1, 1}, dilations[2] = {1, 1}, k[2] = {kh, kw};
	db_attr_ints(n, "pads", pads, 4);
	db_attr_ints(n, "strides", strides, 2);
	db_attr_ints(n, "dilations", dilations, 2);
	if (!db_attr_is(n, "auto_pad", "NOTSET", true)) return fail(n, fault, "auto_pad is not supported");
	enum { MOST = 1 << 20 };
	for (int i = 0; i < 2; i++) {
		if (strides[i] > MOST || dilations[i] > MOST || pads[i] > MOST || pads[i + 2] > MOST || k[i] > MOST) return fail(n, fault, "strides, dilations or pads make no sense");
		if (strides[i] < 1 || dilations[i] < 1 || pads[i] < 0 || pads[i + 2] < 0 || k[i] < 1) return fail(n, fault, "strides, dilations or pads make no sense");
		int64_t room = in->d[2 + i] + pads[i] + pads[i + 2] - dilations[i] * (k[i] - 1) - 1;
		if (room < 0) return fail(n, fault, "the window is larger than the input");
		out->d[2 + i] = room / strides[i] + 1;
	}
	return true;
}

static bool conv(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0), *w = input(x, n, 1), *bias = input(x, n, 2);
	int64_t group = db_attr_int(n, "group", 1);
	if (!in || !w || in->shape.n != 4 || w->shape.n != 4) return fail(n, fault, "two dimensions are supported");
	if (w->held != DB_FLOAT || (bias && (bias->held != DB_FLOAT || db_count(&bias->shape) != w->shape.d[0]))) return fail(n, fault, "the bias does not fit the weights");
	if (group < 1 || group > 1 << 20 || in->shape.d[1] != w->shape.d[1] * group || w->shape.d[0] % group) return fail(n, fault, "channels and weights do not fit");
	*out = (db_shape){4, {in->shape.d[0], w->shape.d[0]}};
	return window(n, &in->shape, w->shape.d[2], w->shape.d[3], out, fault);
}

static bool pool(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0);
	int64_t k[2];
	if (!in || in->shape.n != 4 || db_attr_ints(n, "kernel_shape", k, 2) != 2 || db_attr_int(n, "ceil_mode", 0)) return fail(n, fault, "two dimensions without ceil_mode are supported");
	*out = (db_shape){4, {in->shape.d[0], in->shape.d[1]}};
	return window(n, &in->shape, k[0], k[1], out, fault);
}

static bool concat(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *first = input(x, n, 0);
	if (!first) return fail(n, fault, "no input");
	*out = first->shape;
	int64_t axis = db_attr_int(n, "axis", 0);
	if (axis < 0) axis += out->n;
	if (axis < 0 || axis >= out->n) return fail(n, fault, "no such axis");
	for (int k = 1; k < n->inputs; k++) {
		db_cell *c = input(x, n, k);
		if (!c || c->held != first->held || c->shape.n != out->n) return fail(n, fault, "the inputs do not fit");
		for (int i = 0; i < out->n; i++)
			if (i != axis && c->shape.d[i] != out->d[i]) return fail(n, fault, "the inputs' shapes do not fit");
		out->d[axis] += c->shape.d[axis];
	}
	return true;
}

static bool slice(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0);
	int ns = 0, ne = 0, na = 0, nst = 0;
	const int64_t *starts = whole(x, n, 1, &ns), *ends = whole(x, n, 2, &ne), *axes = whole(x, n, 3, &na), *steps = whole(x, n, 4, &nst);
	if ((input(x, n, 3) && !axes) || (input(x, n, 4) && !steps)) return fail(n, fault, "axes and steps have to be known");
	if (!in || !starts || !ends || ns != ne || (axes && na != ns) || (steps && nst != ns)) return fail(n, fault, "starts and ends have to be known");
	*out = in->shape;
	bool seen[DB_DIMS] = {0};
	for (int i = 0; i < ns; i++) {
		int64_t a = axes ? axes[i] : i, step = steps ? steps[i] : 1;
		if (a < 0) a += out->n;
		if (a < 0 || a >= out->n || seen[a] || step < 1 || step > INT32_MAX) return fail(n, fault, "no such axis, or a step below 1");
		seen[a] = true;
		int64_t d = in->shape.d[a], s = starts[i] < 0 ? starts[i] + d : starts[i], e = ends[i] < 0 ? ends[i] + d : ends[i];
		s = s < 0 ? 0 : s > d ? d : s;
		e = e < 0 ? 0 : e > d ? d : e;
		out->d[a] = e > s ? (e - s + step - 1) / step : 0;
	}
	return true;
}

static bool resize(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0), *scales = input(x, n, n->inputs == 2 ? 1 : 2);
	if (!in || !db_attr_is(n, "mode", "nearest", true)) return fail(n, fault, "mode nearest is supported");
	if (!db_attr_is(n, "coordinate_transformation_mode", "asymmetric", false) || !db_attr_is(n, "nearest_mode", "floor", false))
		return fail(n, fault, "asymmetric and floor are supported");
	int count;
	const int64_t *sizes = whole(x, n, 3, &count);
	*out = in->shape;
	if (sizes && count == out->n) memcpy(out->d, sizes, sizeof *sizes * (size_t)count);
	else if (scales && scales->known && scales->held == DB_FLOAT && db_count(&scales->shape) == out->n)
		for (int i = 0; i < out->n; i++) {
			float size = floorf((float)in->shape.d[i] * ((float *)scales->data)[i]);
			out->d[i] = size >= 1 && size < 1 << 30 ? (int64_t)size : 0;
		}
	else return fail(n, fault, "scales or sizes have to be known");
	for (int i = 0; i < out->n; i++)
		if (out->d[i] < 1 || in->shape.d[i] < 1) return fail(n, fault, "a size below 1");
	return true;
}

static bool reshape(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0);
	int count, open = -1;
	const int64_t *want = whole(x, n, 1, &count);
	if (!in || !want || count > DB_DIMS) return fail(n, fault, "the shape has to be known");
	out->n = count;
	int64_t rest = 1, all = db_count(&in->shape);
	for (int i = 0; i < count; i++) {
		out->d[i] = want[i];
		if (want[i] == 0 && i < in->shape.n) out->d[i] = in->shape.d[i];
		if (out->d[i] > INT32_MAX || rest > INT32_MAX) return fail(n, fault, "the shape makes no sense");
		if (want[i] < 0) open = i;
		else rest *= out->d[i];
	}
	if (open >= 0) out->d[open] = rest ? all / rest : 0;
	return db_count(out) == all || fail(n, fault, "the element counts do not fit");
}

static bool transpose(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0);
	int64_t perm[DB_DIMS];
	if (!in) return fail(n, fault, "no input");
	*out = in->shape;
	int count = db_attr_ints(n, "perm", perm, DB_DIMS);
	if (count != out->n) return fail(n, fault, "perm has another length than the shape");
	bool seen[DB_DIMS] = {0};
	for (int i = 0; i < count; i++) {
		if (perm[i] < 0 || perm[i] >= count || seen[perm[i]]) return fail(n, fault, "perm names no axis, or one twice");
		seen[perm[i]] = true;
		out->d[i] = in->shape.d[perm[i]];
	}
	return true;
}

static bool reduce(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0);
	int64_t axes[DB_DIMS];
	if (!in || n->inputs > 1) return fail(n, fault, "axes as an input are not supported");
	int count = db_attr_ints(n, "axes", axes, DB_DIMS);
	bool gone[DB_DIMS] = {0}, keep = db_attr_int(n, "keepdims", 1);
	for (int i = 0; i < in->shape.n; i++) gone[i] = count <= 0;
	for (int i = 0; i < count; i++) {
		int64_t a = axes[i] < 0 ? axes[i] + in->shape.n : axes[i];
		if (a < 0 || a >= in->shape.n) return fail(n, fault, "no such axis");
		gone[a] = true;
	}
	out->n = 0;
	for (int i = 0; i < in->shape.n; i++)
		if (!gone[i]) out->d[out->n++] = in->shape.d[i];
		else if (keep) out->d[out->n++] = 1;
	return true;
}

// scaled checks scale and zero point: one, or one for each place along the axis.
static bool scaled(db_exec *x, const db_node *n, db_shape *out, db_fault *fault) {
	db_cell *in = input(x, n, 0), *scale = input(x, n, 1), *zero = input(x, n, 2);
	if (!in || !scale || in->held != DB_FLOAT || scale->held != DB_FLOAT || (zero && zero->held != DB_FLOAT)) return fail(n, fault, "wants INT8 or UINT8 with a scale");
	*out = in->shape;
	int64_t k = db_count(&scale->shape), axis = db_attr_int(n, "axis", 1);
	if (axis < 0) axis += out->n;
	if (k < 1 || (k != 1 && (axis < 0 || axis >= out->n || out->d[axis] != k))) return fail(n, fault, "the scales do not fit the axis");
	return !zero || db_count(&zero->shape) == k || fail(n, fault, "scales and zero points differ in number");
}

static bool constant(db_exec *x, const db_node *n, db_fault *fault) {
	db_cell *out = &x->cell[n->out];
	db_value v;
	if (!db_attr_tensor(n, "value", &v)) {
		free(v.data);
		return fail(n, fault, "wants a tensor as its value");
	}
	*out = (db_cell){v.shape, v.held, true, true, v.data};
	return true;
}

static bool shape(db_exec *x, const db_node *n, db_fault *fault) {
	db_cell *in = input(x, n, 0), *out = &x->cell[n->out];
	if (!in) return fail(n, fault, "no input");
	*out = (db_cell){{1, {in->shape.n}}, DB_INT, true, true, db_alloc(DB_DIMS * sizeof(int64_t))};
	memcpy(out->data, in->shape.d, sizeof in->shape.d);
	return true;
}

bool db_op_shape(db_exec *x, const db_node *n, db_fault *fault) {
	db_cell *out = &x->cell[n->out], *in = input(x, n, 0);
	if (n->op == OP_Constant) return constant(x, n, fault);
	if (n->op == OP_Shape) return shape(x, n, fault);
	if (!in) return fail(n, fault, "no input");
	out->held = in->held;
	out->shape = in->shape;
	if (in->held == DB_INT && n->op != OP_Mul && n->op != OP_Add && n->op != OP_Sub && n->op != OP_Concat && n->op != OP_Slice && n->op != OP_Reshape)
		return fail(n, fault, "integers are not supported");
	switch (n->op) {
	case OP_Mul: case OP_Add: case OP_Sub: return broadcast(x, n, &out->shape, fault);
	case OP_Conv: return conv(x, n, &out->shape, fault);
	case OP_MaxPool: return pool(x, n, &out->shape, fault);
	case OP_Concat: return concat(x, n, &out->shape, fault);
	case OP_Slice: return slice(x, n, &out->shape, fault);
	case OP_Resize: return resize(x, n, &out->shape, fault);
	case OP_Reshape: return reshape(x, n, &out->shape, fault);
	case OP_Transpose: return transpose(x, n, &out->shape, fault);
	case OP_ReduceMax: return reduce(x, n, &out->shape, fault);
	case OP_QuantizeLinear: case OP_DequantizeLinear: return scaled(x, n, &out->shape, fault);
	}
	return true;
}

// too_large: TensorRT takes no tensor of 2^31 elements.
static bool too_large(const db_shape *s) {
	int64_t n = db_count(s);
	return n < 0 || n > INT32_MAX;
}

db_exec *db_exec_new(const db_graph *g, const db_shape *inputs, db_fault *fault) {
	db_exec *x = db_alloc(sizeof *x);
	x->g = g;
	x->cell = db_alloc((size_t)g->values * sizeof *x->cell);
	for (int i = 0; i < g->values; i++)
		if (g->value[i].data) x->cell[i] = (db_cell){g->value[i].shape, g->value[i].held, true, false, g->value[i].data};
	bool ok = true;
	for (int i = 0; i < g->inputs; i++) {
		x->cell[g->in[i]] = (db_cell){.shape = inputs[i], .held = g->value[g->in[i]].held};
		if (too_large(&inputs[i])) {
			snprintf(fault->text, sizeof fault->text, "%.80s: the volume of its dimensions exceeds 2147483647 elements", g->value[g->in[i]].name);
			fault->node = -1;
			ok = false;
		}
	}
	for (int i = 0; i < g->nodes && ok; i++) {
		const db_node *n = &g->node[i];
		db_cell *out = &x->cell[n->out];
		if (!(ok = db_op_shape(x, n, fault)) || out->known) continue;
		if (too_large(&out->shape)) {
			ok = fail(n, fault, "the volume of its output's dimensions exceeds 2147483647 elements");
			continue;
		}
		bool known = true;
		for (int k = 0; k < n->inputs; k++) known = known && (n->in[k] < 0 || x->cell[n->in[k]].known);
		if (!known) continue;
		if (db_count(&out->shape) > 1 << 24) {
			ok = fail(n, fault, "a constant of over 16777216 elements");
			continue;
		}
		// All is known beforehand: computed now, once.
		out->data = db_alloc((size_t)db_count(&out->shape) * 8);
		out->known = out->owned = true;
		db_op_run(x, n);
	}
	if (ok) return x;
	db_exec_free(x);
	return NULL;
}

bool db_outputs(const db_graph *g, db_shape *out, db_fault *fault) {
	db_shape in[2][DB_INPUTS];
	db_exec *x[2] = {NULL, NULL};
	// Laid out with two sizes for what is open: what differs then follows from it.
	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < g->inputs; i++) {
			in[k][i] = g->value[g->in[i]].shape;
			for (int d = 0; d < in[k][i].n; d++)
				if (in[k][i].d[d] < 0) in[k][i].d[d] = d == 0 ? 1 + k : 32 * (1 + k);
		}
		x[k] = db_exec_new(g, in[k], fault);
	}
	bool ok = x[0] && x[1];
	for (int i = 0; i < g->outputs && ok; i++) {
		out[i] = x[0]->cell[g->out[i]].shape;
		for (int d = 0; d < out[i].n; d++)
			if (out[i].d[d] != x[1]->cell[g->out[i]].shape.d[d]) out[i].d[d] = -1;
	}
	for (int k = 0; k < 2; k++) db_exec_free(x[k]);
	return ok;
}

int64_t db_exec_largest(const db_exec *x) {
	int64_t most = 0;
	for (int i = 0; i < x->g->values; i++) {
		int64_t n = x->cell[i].known ? 0 : db_count(&x->cell[i].shape) * 4;
		if (n > most) most = n;
	}
	return most;
}

void db_exec_free(db_exec *x) {
	if (!x) return;
	for (int i = 0; i < x->g->values; i++)
		if (x->cell[i].owned) free(x->cell[i].data);
	free(x->cell);
	free(x);
}
