// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for the reading part of libnvonnxparser: a bounded reader of protobuf and the
// parts of ONNX that our networks use.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

enum { MOST_VALUES = 20000 };

typedef struct {
	int number, wire;
	uint64_t v;
	db_bytes b;
} field;

static bool varint(db_bytes *in, uint64_t *out) {
	*out = 0;
	for (int shift = 0; shift < 64 && in->p < in->end; shift += 7) {
		uint8_t c = *in->p++;
		*out |= (uint64_t)(c & 127) << shift;
		if (c < 128) return true;
	}
	return false;
}

// next reads one field: 1 there is one, 0 the end, -1 broken.
static int next(db_bytes *in, field *f) {
	uint64_t key, n;
	if (in->p == in->end) return 0;
	if (!varint(in, &key) || key >> 3 == 0 || key >> 3 > 1 << 29) return -1;
	*f = (field){.number = (int)(key >> 3), .wire = (int)(key & 7)};
	switch (f->wire) {
	case 0: return varint(in, &f->v) ? 1 : -1;
	case 1: n = 8; break;
	case 2:
		if (!varint(in, &n)) return -1;
		break;
	case 5: n = 4; break;
	default: return -1;
	}
	if (n > (uint64_t)(in->end - in->p)) return -1;
	f->b = (db_bytes){in->p, in->p + n};
	in->p += n;
	return 1;
}

static char *string(db_bytes b) {
	size_t n = (size_t)(b.end - b.p);
	char *s = db_alloc(n + 1);
	if (n) memcpy(s, b.p, n);
	return s;
}

static bool is(db_bytes b, const char *s) { return b.p && strlen(s) == (size_t)(b.end - b.p) && memcmp(b.p, s, strlen(s)) == 0; }

// find gives the last field of that number, which is the one that counts.
static bool find(db_bytes in, int number, field *out) {
	field f;
	bool there = false;
	while (next(&in, &f) == 1)
		if (f.number == number) *out = f, there = true;
	return there;
}

static bool attribute(const db_node *n, const char *name, db_bytes *out) {
	db_bytes in = n->raw;
	field f, g;
	while (next(&in, &f) == 1)
		if (f.number == 5 && f.wire == 2 && find(f.b, 1, &g) && is(g.b, name)) return *out = f.b, true;
	return false;
}

int64_t db_attr_int(const db_node *n, const char *name, int64_t otherwise) {
	db_bytes a;
	field f;
	return attribute(n, name, &a) && find(a, 3, &f) ? (int64_t)f.v : otherwise;
}

float db_attr_float(const db_node *n, const char *name, float otherwise) {
	db_bytes a;
	field f;
	if (attribute(n, name, &a) && find(a, 2, &f) && f.wire == 5) memcpy(&otherwise, f.b.p, 4);
	return otherwise;
}

bool db_attr_is(const db_node *n, const char *name, const char *text, bool otherwise) {
	db_bytes a;
	field f;
	return attribute(n, name, &a) && find(a, 4, &f) ? is(f.b, text) : otherwise;
}

// ints reads repeated integers, packed or one by one.
static int ints(db_bytes in, int number, int64_t *out, int most) {
	field f;
	uint64_t v;
	int n = 0;
	while (next(&in, &f) == 1) {
		if (f.number != number) continue;
		if (f.wire == 0 && n < most) out[n++] = (int64_t)f.v;
		while (f.wire == 2 && f.b.p < f.b.end && n < most && varint(&f.b, &v)) out[n++] = (int64_t)v;
	}
	return n;
}

int db_attr_ints(const db_node *n, const char *name, int64_t *out, int most) {
	db_bytes a;
	return attribute(n, name, &a) ? ints(a, 8, out, most) : -1;
}

int64_t db_count(const db_shape *s) {
	int64_t n = 1;
	for (int i = 0; i < s->n; i++) {
		if (s->d[i] < 0 || (s->d[i] && n > INT64_MAX / 16 / s->d[i])) return -1;
		n *= s->d[i];
	}
	return n;
}

static int width(int elem) {
	switch (elem) {
	case ONNX_FLOAT: case ONNX_INT32: return 4;
	case ONNX_INT8: case ONNX_UINT8: return 1;
	case ONNX_INT64: return 8;
	}
	return 0;
}

static void fill(db_value *v, const uint8_t *raw, int64_t n) {
	float *f = v->data;
	int64_t *k = v->data;
	for (int64_t i = 0; i < n; i++) switch (v->elem) {
		case ONNX_FLOAT: memcpy(f + i, raw + 4 * i, 4); break;
		case ONNX_UINT8: f[i] = raw[i]; break;
		case ONNX_INT8: f[i] = (int8_t)raw[i]; break;
		case ONNX_INT64: memcpy(k + i, raw + 8 * i, 8); break;
		case ONNX_INT32: {
			int32_t t;
			memcpy(&t, raw + 4 * i, 4);
			k[i] = t;
		}
	}
}

// listed reads the elements that are not raw: float_data 4, int32_data 5, int64_data 7.
static bool listed(db_bytes in, db_value *v, int64_t n) {
	if (v->elem == ONNX_FLOAT) {
		field f;
		int64_t at = 0;
		while (next(&in, &f) == 1)
			if (f.number == 4 && (f.wire == 2 || f.wire == 5))
				for (; f.b.end - f.b.p >= 4 && at < n; f.b.p += 4) memcpy((float *)v->data + at++, f.b.p, 4);
		return at == n;
	}
	int64_t *k = db_alloc((size_t)n * 8);
	bool ok = ints(in, v->elem == ONNX_INT64 ? 7 : 5, k, (int)n) == n;
	for (int64_t i = 0; ok && i < n; i++)
		if (v->held == DB_INT) ((int64_t *)v->data)[i] = k[i];
		else ((float *)v->data)[i] = (float)(int32_t)k[i];
	free(k);
	return ok;
}

// tensor reads a TensorProto into v, all but the name.
static bool tensor(db_bytes in, db_value *v, const char **why) {
	field f = {0};
	v->elem = find(in, 2, &f) ? (int)f.v : 0;
	v->held = v->elem == ONNX_INT64 || v->elem == ONNX_INT32 ? DB_INT : DB_FLOAT;
	v->shape.n = ints(in, 1, v->shape.d, DB_DIMS);
	int64_t n = db_count(&v->shape);
	if (!width(v->elem)) return *why = "an element type that is not supported", false;
	if (n < 0 || n > in.end - in.p) return *why = "dimensions that make no sense", false;
	v->data = db_alloc((size_t)n * 8);
	if (!find(in, 9, &f)) return *why = "fewer elements than its shape says", listed(in, v, n);
	if (f.b.end - f.b.p != n * width(v->elem)) return *why = "raw data of another size than its shape says", false;
	fill(v, f.b.p, n);
	return true;
}

bool db_attr_tensor(const db_node *n, const char *name, db_value *out) {
	db_bytes a;
	field f;
	const char *why;
	*out = (db_value){0};
	return attribute(n, name, &a) && find(a, 5, &f) && tensor(f.b, out, &why);
}

static int value_of(const db_graph *g, db_bytes name) {
	for (int i = 0; i < g->values; i++)
		if (is(name, g->value[i].name)) return i;
	return -1;
}

static int add(db_graph *g, db_bytes name) {
	int i = value_of(g, name);
	if (i >= 0) return i;
	if (g->values == g->room) return -1;
	g->value[g->values].name = string(name);
	return g->values++;
}

static bool fail(db_fault *fault, int node, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool fail(db_fault *fault, int node, const char *format, ...) {
	va_list a;
	va_start(a, format);
	vsnprintf(fault->text, sizeof fault->text, format, a);
	va_end(a);
	fault->node = node;
	return false;
}

static bool read_node(db_graph *g, db_bytes raw, db_fault *fault) {
	db_node *n = &g->node[g->nodes];
	db_bytes in = raw;
	field f;
	int r, outputs = 0;
	*n = (db_node){.index = g->nodes++, .raw = raw, .out = -1};
	while ((r = next(&in, &f)) == 1) {
		if (f.wire != 2) continue;
		if (f.number == 1) {
			if (n->inputs == DB_INPUTS) return fail(fault, n->index, "a node has over %d inputs", DB_INPUTS);
			n->in[n->inputs++] = f.b.p == f.b.end ? -1 : add(g, f.b);
		}
		if (f.number == 2 && outputs++ == 0) n->out = add(g, f.b);
		if (f.number == 3) free(n->name), n->name = string(f.b);
		if (f.number == 4) free(n->type), n->type = string(f.b);
	}
	if (r < 0) return fail(fault, n->index, "not an ONNX model: node %d is broken", n->index);
	if (!n->type) n->type = db_strdup("");
	if (!n->name || !*n->name) {
		free(n->name);
		char made[80];
		snprintf(made, sizeof made, "(Unnamed Layer* %d) [%.40s]", n->index, n->type);
		n->name = db_strdup(made);
	}
	n->op = db_op_number(n->type);
	if (n->op < 0) return fail(fault, n->index, "operator %.60s of node %d %.80s is not supported", n->type, n->index, n->name);
	if (outputs != 1 || n->out < 0) return fail(fault, n->index, "node %d %.80s has %d outputs, one is supported", n->index, n->name, outputs);
	g->quantized |= n->op == OP_QuantizeLinear;
	return true;
}

static bool read_initializer(db_graph *g, db_bytes raw, db_fault *fault) {
	field f;
	const char *why = "";
	if (!find(raw, 8, &f)) return fail(fault, -1, "an initializer has no name");
	int i = add(g, f.b);
	if (i < 0 || g->value[i].data) return fail(fault, -1, "initializer %.80s is there twice", i < 0 ? "" : g->value[i].name);
	if (!tensor(raw, &g->value[i], &why)) return fail(fault, -1, "initializer %.80s has %s", g->value[i].name, why);
	return true;
}

// read_port reads a ValueInfoProto: name 1, type 2 { tensor 1 { elem 1, shape 2 { dim 1 { value 1 }}}}.
static bool read_port(db_graph *g, db_bytes raw, bool input, db_fault *fault) {
	field f;
	if (!find(raw, 1, &f)) return fail(fault, -1, "an input or output has no name");
	int i = add(g, f.b);
	if (i < 0) return fail(fault, -1, "too many values");
	db_value *v = &g->value[i];
	if (input && v->data) return true; // old files list initializers as inputs too
	int *count = input ? &g->inputs : &g->outputs;
	if (*count == DB_INPUTS) return fail(fault, -1, "over %d inputs or outputs", DB_INPUTS);
	(input ? g->in : g->out)[(*count)++] = i;
	if (!input) return true;
	if (!find(raw, 2, &f) || !find(f.b, 1, &f)) return fail(fault, -1, "input %.80s has no tensor type", v->name);
	db_bytes type = f.b;
	v->elem = find(type, 1, &f) ? (int)f.v : 0;
	v->held = DB_FLOAT;
	if (v->elem != ONNX_FLOAT) return fail(fault, -1, "input %.80s has elements of type %d, float is supported", v->name, v->elem);
	if (!find(type, 2, &f)) return fail(fault, -1, "input %.80s has no shape", v->name);
	db_bytes dims = f.b;
	while (next(&dims, &f) == 1) {
		field d;
		if (f.number != 1) continue;
		if (v->shape.n == DB_DIMS) return fail(fault, -1, "input %.80s has over %d dimensions", v->name, DB_DIMS);
		v->shape.d[v->shape.n++] = find(f.b, 1, &d) ? (int64_t)d.v : -1;
	}
	return true;
}

// walk calls each for every field of one number in the graph.
static bool walk(db_graph *g, db_bytes in, int number, db_fault *fault) {
	field f;
	int r;
	while ((r = next(&in, &f)) == 1) {
		if (f.number != number || f.wire != 2) continue;
		bool ok = number == 1 ? read_node(g, f.b, fault) : number == 5 ? read_initializer(g, f.b, fault) : read_port(g, f.b, number == 11, fault);
		if (!ok) return false;
	}
	return r == 0 || fail(fault, -1, "not an ONNX model: the graph is broken");
}

static int count(db_bytes in, int number) {
	field f;
	int n = 0;
	while (next(&in, &f) == 1) n += f.number == number;
	return n;
}

// names is how many values there can be, at most.
static int names(db_bytes graph) {
	field f;
	int n = count(graph, 5) + count(graph, 11) + count(graph, 12);
	while (next(&graph, &f) == 1)
		if (f.number == 1) n += count(f.b, 1) + count(f.b, 2);
	return n < MOST_VALUES ? n : MOST_VALUES;
}

// ordered is whether each value that a node wants is made before it, and once.
static bool ordered(const db_graph *g, db_fault *fault) {
	bool *made = db_alloc((size_t)g->values);
	bool ok = true;
	for (int i = 0; i < g->values; i++) made[i] = g->value[i].data != NULL;
	for (int i = 0; i < g->inputs; i++) made[g->in[i]] = true;
	for (int i = 0; i < g->nodes && ok; i++) {
		const db_node *n = &g->node[i];
		for (int k = 0; k < n->inputs && ok; k++)
			if (n->in[k] >= 0 && !made[n->in[k]]) ok = fail(fault, i, "node %d %.80s wants %.60s, which nothing makes", i, n->name, g->value[n->in[k]].name);
		if (ok && made[n->out]) ok = fail(fault, i, "node %d %.80s makes %.60s, which is there already", i, n->name, g->value[n->out].name);
		made[n->out] = true;
	}
	for (int i = 0; i < g->outputs && ok; i++)
		if (!made[g->out[i]]) ok = fail(fault, -1, "nothing makes output %.80s", g->value[g->out[i]].name);
	free(made);
	return ok;
}

static bool read_model(db_graph *g, db_bytes model, db_fault *fault) {
	db_bytes in = model;
	field f, graph = {0}, version;
	int r;
	while ((r = next(&in, &f)) == 1) {
		if (f.number == 7 && f.wire == 2) graph = f;
		field domain;
		if (f.number == 8 && f.wire == 2 && find(f.b, 2, &version) && (!find(f.b, 1, &domain) || domain.b.p == domain.b.end)) g->opset = (int)version.v;
	}
	if (r < 0 || !graph.b.p) return fail(fault, -1, "not an ONNX model");
	if (g->opset < 7) return fail(fault, -1, "opset %d is not supported", g->opset);
	int nodes = count(graph.b, 1);
	if (nodes == 0 || nodes > MOST_VALUES / 2) return fail(fault, -1, "%d nodes", nodes);
	g->node = db_alloc((size_t)nodes * sizeof *g->node);
	g->room = names(graph.b);
	g->value = db_alloc((size_t)g->room * sizeof *g->value);
	// Initializers first: an input that is one too is no input.
	if (!walk(g, graph.b, 5, fault) || !walk(g, graph.b, 11, fault) || !walk(g, graph.b, 1, fault) || !walk(g, graph.b, 12, fault)) return false;
	if (g->inputs == 0 || g->outputs == 0) return fail(fault, -1, "%d inputs and %d outputs", g->inputs, g->outputs);
	return ordered(g, fault);
}

db_graph *db_graph_read(const void *onnx, size_t n, db_fault *fault) {
	db_graph *g = db_alloc(sizeof *g);
	g->bytes = db_alloc(n);
	if (n) memcpy(g->bytes, onnx, n);
	if (read_model(g, (db_bytes){g->bytes, g->bytes + n}, fault)) return g;
	db_graph_free(g);
	return NULL;
}

void db_graph_free(db_graph *g) {
	if (!g) return;
	for (int i = 0; i < g->values; i++) {
		free(g->value[i].name);
		free(g->value[i].data);
	}
	for (int i = 0; i < g->nodes; i++) {
		free(g->node[i].name);
		free(g->node[i].type);
	}
	free(g->value);
	free(g->node);
	free(g->bytes);
	free(g);
}
