// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for IExecutionContext: shapes, addresses and runs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

typedef struct {
	const db_engine *engine;
	int profile;
	db_shape in[DB_INPUTS];
	void *address[2 * DB_INPUTS]; // inputs, then outputs
	db_exec *exec;                // laid out for in; NULL until all shapes are set
	unsigned generation;          // of shapes
	void *own, *given;            // memory between layers
	int64_t given_size;           // -1: not told
	bool user_managed;
	atomic_int busy;
} context;

static void context_drop(void *data) {
	context *c = data;
	if (c->own) db_give(c->own);
	db_exec_free(c->exec);
	free(c);
}

static void lay_out(context *c) {
	db_fault fault;
	db_exec_free(c->exec);
	c->exec = NULL;
	c->generation++;
	for (int i = 0; i < c->engine->graph->inputs; i++)
		if (db_count(&c->in[i]) < 0) return;
	c->exec = db_exec_new(c->engine->graph, c->in, &fault);
	if (!c->exec) db_die("ExecutionContext: %s", fault.text);
}

db_object *db_context(db_object *engine, bool own_memory) {
	const db_engine *e = engine->data;
	context *c = db_alloc(sizeof *c);
	db_reread();
	c->engine = e;
	c->user_managed = !own_memory;
	int r = db_lost() ? CU_ILLEGAL_ADDRESS : own_memory && e->scratch ? db_take(&c->own, (size_t)e->scratch, "activations") : CU_OK;
	if (r) {
		if (r == CU_OUT_OF_MEMORY) db_log(engine->logger, FL_Severity_kERROR, "double: out of memory for activations of %lld bytes", (long long)e->scratch);
		else db_log(engine->logger, FL_Severity_kERROR, "double: CUDA error %d in createExecutionContext", r);
		free(c);
		return NULL;
	}
	for (int i = 0; i < e->graph->inputs; i++) c->in[i] = e->graph->value[e->graph->in[i]].shape;
	lay_out(c);
	return db_new(FL_C_ExecutionContext, engine, false, c, context_drop);
}

// at finds a tensor for a call, and says so if there is none.
static int at(db_object *o, enum fl_method m, const char *name) {
	int i = db_io(((context *)o->data)->engine, name);
	if (i < 0) db_log(o->logger, FL_Severity_kERROR, "double: %s: no tensor %s", fl_method_names[m], name);
	return i;
}

static bool set_address(void *self, const char *name, void *address) {
	db_object *o = db_self_object(self, FL_ExecutionContext_setTensorAddress);
	int i = at(o, FL_ExecutionContext_setTensorAddress, name);
	if (i < 0) return false;
	if (!address || (uintptr_t)address % 256) {
		db_log(o->logger, FL_Severity_kERROR, "double: tensor %s: address %p is NULL or not aligned to 256 bytes", name, address);
		return false;
	}
	((context *)o->data)->address[i] = address;
	return true;
}

static bool set_shape(void *self, const char *name, const db_dims *dims) {
	db_object *o = db_self_object(self, FL_ExecutionContext_setInputShape);
	context *c = o->data;
	const db_engine *e = c->engine;
	int i = at(o, FL_ExecutionContext_setInputShape, name);
	db_shape s;
	if (i < 0 || i >= e->graph->inputs) return false;
	const db_range *r = &e->plan.range[c->profile][i];
	bool ok = db_from_dims(dims, &s) && s.n == r->shape[0].n;
	for (int d = 0; ok && d < s.n; d++) ok = s.d[d] >= r->shape[0].d[d] && s.d[d] <= r->shape[2].d[d];
	if (!ok) {
		db_log(o->logger, FL_Severity_kERROR, "double: input %s: its dimensions are not within profile %d", name, c->profile);
		return false;
	}
	if (atomic_load(&c->busy)) db_die("ExecutionContext::setInputShape while the context runs on another thread");
	bool same = memcmp(&s, &c->in[i], sizeof s) == 0;
	c->in[i] = s;
	if (!same || !c->exec) lay_out(c);
	return true;
}

static db_dims get_shape(void *self, const char *name) {
	db_object *o = db_self_object(self, FL_ExecutionContext_getTensorShape);
	const context *c = o->data;
	const db_graph *g = c->engine->graph;
	int i = at(o, FL_ExecutionContext_getTensorShape, name);
	if (i < 0) return (db_dims){.n = -1};
	if (i < g->inputs) return db_to_dims(&c->in[i]);
	return db_to_dims(c->exec ? &c->exec->cell[g->out[i - g->inputs]].shape : &c->engine->out[i - g->inputs]);
}

static void give_memory(context *c, void *memory, int64_t n) {
	if (!c->user_managed) db_die("ExecutionContext::setDeviceMemory on a context that has memory of its own");
	c->given = memory;
	c->given_size = n;
}
static void set_memory(void *self, void *memory) { give_memory(db_self(self, FL_ExecutionContext_setDeviceMemory), memory, -1); }
static void set_memory2(void *self, void *memory, int64_t n) { give_memory(db_self(self, FL_ExecutionContext_setDeviceMemoryV2), memory, n); }

// A run that is on a stream, or kept in a graph, with what it was given then.
typedef struct {
	db_object *object;
	unsigned generation;
	void *address[2 * DB_INPUTS], *scratch;
} run;

static int64_t bytes(const context *c, int i) {
	const db_graph *g = c->engine->graph;
	return db_count(&c->exec->cell[i < g->inputs ? g->in[i] : g->out[i - g->inputs]].shape) * 4;
}

static int compute(void *arg) {
	run *r = arg;
	if (!r->object->thing.alive) db_die("a run of an ExecutionContext that was deleted before it was done, or whose graph is replayed");
	context *c = r->object->data;
	if (r->generation != c->generation) db_die("a graph is replayed after its ExecutionContext got other shapes");
	if (atomic_exchange(&c->busy, 1)) db_die("ExecutionContext::enqueueV3 on two threads at once");
	int result = CU_OK;
	for (int i = 0; i < db_io_count(c->engine) && result == CU_OK; i++) {
		if (db_in_device(r->address[i], (size_t)bytes(c, i))) continue;
		fprintf(stderr, "double: tensor %s: %lld bytes at its address are not memory of the device\n", db_io_name(c->engine, i), (long long)bytes(c, i));
		result = CU_ILLEGAL_ADDRESS;
	}
	if (result == CU_OK && r->scratch) {
		if (db_in_device(r->scratch, (size_t)c->engine->scratch)) memset(r->scratch, 0xff, (size_t)c->engine->scratch);
		else {
			fprintf(stderr, "double: the memory between layers is not memory of the device, or below %lld bytes\n", (long long)c->engine->scratch);
			result = CU_ILLEGAL_ADDRESS;
		}
	}
	if (result == CU_OK) db_exec_run(c->exec, r->address, r->address + c->engine->graph->inputs);
	atomic_store(&c->busy, 0);
	return result;
}

static bool complete(db_object *o, const context *c) {
	for (int i = 0; i < db_io_count(c->engine); i++)
		if (!c->address[i]) {
			db_log(o->logger, FL_Severity_kERROR, "double: enqueueV3: tensor %s has no address", db_io_name(c->engine, i));
			return false;
		}
	if (!c->exec) {
		db_log(o->logger, FL_Severity_kERROR, "double: enqueueV3: the shapes of some inputs are not set");
		return false;
	}
	if (c->user_managed && c->engine->scratch && (!c->given || (c->given_size >= 0 && c->given_size < c->engine->scratch))) {
		db_log(o->logger, FL_Severity_kERROR, "double: enqueueV3: the context has no device memory, or less than it needs");
		return false;
	}
	return true;
}

static bool enqueue(void *self, void *stream) {
	db_object *o = db_self_object(self, FL_ExecutionContext_enqueueV3);
	context *c = o->data;
	if (!complete(o, c)) return false;
	if (!db_lost() && db_sticky_now()) db_lose();
	if (db_lost()) {
		db_log(o->logger, FL_Severity_kERROR, "double: enqueueV3: CUDA error 700 (an illegal memory access was encountered)");
		return false;
	}
	run *r = db_alloc(sizeof *r);
	r->object = o;
	r->generation = c->generation;
	r->scratch = c->user_managed ? c->given : NULL;
	memcpy(r->address, c->address, sizeof r->address);
	int result = db_submit(stream, "ExecutionContext::enqueueV3", compute, free, r, NULL);
	if (result) db_log(o->logger, FL_Severity_kERROR, "double: enqueueV3: CUDA error %d", result);
	return result == CU_OK;
}

const db_method db_context_methods[] = {
	{FL_ExecutionContext_setTensorAddress, (void *)set_address},
	{FL_ExecutionContext_setInputShape, (void *)set_shape},
	{FL_ExecutionContext_getTensorShape, (void *)get_shape},
	{FL_ExecutionContext_enqueueV3, (void *)enqueue},
	{FL_ExecutionContext_setDeviceMemory, (void *)set_memory},
	{FL_ExecutionContext_setDeviceMemoryV2, (void *)set_memory2},
	{0, NULL},
};
