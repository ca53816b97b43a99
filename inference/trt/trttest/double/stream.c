// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for streams, events and graphs of libcuda. A stream does its work at once (or,
// with LAZY, when it is waited for); while it is captured, the work is kept instead and
// a graph replays it.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "double.h"

typedef struct {
	db_op *first, **last;
} list;

typedef struct {
	db_thing thing; // "graph"
	list ops;
	int users; // the graph itself and executables made of it
} graph;

typedef struct {
	db_thing thing; // "executable graph"
	graph *of;
} executable;

struct db_stream {
	db_thing thing; // "stream"
	unsigned flags;
	bool capturing, spoiled;
	int mode;
	pthread_t by;
	graph *into;
	list pending;
	pthread_mutex_t mu;
	db_stream *next;
};

typedef struct {
	db_thing thing; // "event"
	bool recorded, captured;
	struct timespec at;
} event;

enum { NON_BLOCKING = 1, MODE_GLOBAL = 0, MODE_THREAD = 1, MODE_RELAXED = 2 };

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; // guards streams and captures
static db_stream *streams;
static db_stream legacy = {.mu = PTHREAD_MUTEX_INITIALIZER}; // the stream NULL

static db_stream *of(void *stream, const char *call) {
	if (!stream) return &legacy;
	db_stream *s = stream;
	db_use(&s->thing, "stream", call);
	return s;
}

static void append(list *l, db_op *op) {
	if (!l->last) l->last = &l->first;
	*l->last = op;
	l->last = &op->next;
}

static void discard(list *l) {
	for (db_op *op = l->first, *next; op; op = next) {
		next = op->next;
		op->drop(op->arg);
		free(op);
	}
	*l = (list){0};
}

static void perform(const db_op *op) {
	if (db_lost()) return;
	if (op->run(op->arg) != CU_OK) {
		fprintf(stderr, "double: the device faults in %s\n", op->what);
		db_lose();
	}
}

static void drain(db_stream *s) {
	pthread_mutex_lock(&s->mu);
	for (db_op *op = s->pending.first; op; op = op->next) perform(op);
	discard(&s->pending);
	pthread_mutex_unlock(&s->mu);
}

static bool same_thread(const db_stream *s) { return pthread_equal(s->by, pthread_self()); }

int db_unsafe(void) {
	int r = CU_OK;
	pthread_mutex_lock(&mu);
	for (db_stream *s = streams; s; s = s->next)
		if (s->capturing && s->mode != MODE_RELAXED && (s->mode == MODE_GLOBAL || same_thread(s))) {
			s->spoiled = true;
			r = CU_CAPTURE_UNSUPPORTED;
		}
	pthread_mutex_unlock(&mu);
	return r;
}

// implicit: work on the stream NULL waits for all blocking streams, which a capture
// does not allow.
static int implicit(void) {
	int r = CU_OK;
	pthread_mutex_lock(&mu);
	for (db_stream *s = streams; s; s = s->next)
		if (s->capturing && !(s->flags & NON_BLOCKING)) {
			s->spoiled = true;
			r = CU_CAPTURE_IMPLICIT;
		}
	pthread_mutex_unlock(&mu);
	return r;
}

int db_submit(void *stream, const char *what, int (*run)(void *), void (*drop)(void *), void *arg, bool *captured) {
	db_stream *s = of(stream, what);
	db_op *op = db_alloc(sizeof *op);
	*op = (db_op){.what = what, .run = run, .drop = drop, .arg = arg};
	int r = s == &legacy ? implicit() : CU_OK;
	if (r == CU_OK && s->capturing && s->spoiled) r = CU_CAPTURE_INVALIDATED;
	if (captured) *captured = s->capturing;
	if (r == CU_OK && s->capturing) {
		append(&s->into->ops, op);
		return CU_OK;
	}
	if (r == CU_OK && db_get()->lazy) {
		pthread_mutex_lock(&s->mu);
		append(&s->pending, op);
		pthread_mutex_unlock(&s->mu);
		return CU_OK;
	}
	if (r == CU_OK) perform(op);
	drop(arg);
	free(op);
	return r;
}

API int cuStreamCreate(void **out, unsigned flags) {
	int r = db_enter();
	if (r) return r;
	if (!out || flags & ~(unsigned)NON_BLOCKING) return CU_INVALID_VALUE;
	db_reread();
	db_stream *s = db_alloc(sizeof *s);
	s->flags = flags;
	pthread_mutex_init(&s->mu, NULL);
	db_born(&s->thing, "stream", "flags %u", flags);
	pthread_mutex_lock(&mu);
	s->next = streams;
	streams = s;
	pthread_mutex_unlock(&mu);
	*out = s;
	return CU_OK;
}

API int cuStreamDestroy_v2(void *stream) {
	int r = db_enter();
	if (r) return r;
	if (!stream) return CU_INVALID_HANDLE;
	db_stream *s = of(stream, "cuStreamDestroy");
	if (s->capturing) db_die("cuStreamDestroy: the stream is being captured");
	drain(s);
	db_dead(&s->thing, "stream", "cuStreamDestroy");
	pthread_mutex_lock(&mu);
	db_stream **at = &streams;
	while (*at != s) at = &(*at)->next;
	*at = s->next;
	pthread_mutex_unlock(&mu);
	return CU_OK;
}

API int cuStreamSynchronize(void *stream) {
	int r = db_enter();
	if (r) return r;
	db_stream *s = of(stream, "cuStreamSynchronize");
	if (s->capturing) {
		s->spoiled = true;
		return CU_CAPTURE_UNSUPPORTED;
	}
	if (s == &legacy && (r = implicit())) return r;
	if (db_sticky_now()) db_lose();
	drain(s);
	return db_lost() ? CU_ILLEGAL_ADDRESS : CU_OK;
}

API int cuStreamBeginCapture_v2(void *stream, int mode) {
	int r = db_enter();
	if (r) return r;
	if (!stream) return CU_CAPTURE_UNSUPPORTED; // the legacy stream cannot be captured
	if (mode < MODE_GLOBAL || mode > MODE_RELAXED) return CU_INVALID_VALUE;
	db_stream *s = of(stream, "cuStreamBeginCapture");
	pthread_mutex_lock(&mu);
	if (s->capturing) r = CU_INVALID_VALUE;
	else {
		s->capturing = true;
		s->spoiled = false;
		s->mode = mode;
		s->by = pthread_self();
		s->into = db_alloc(sizeof *s->into);
	}
	pthread_mutex_unlock(&mu);
	return r;
}

API int cuStreamEndCapture(void *stream, void **out) {
	int r = db_enter();
	if (r) return r;
	db_stream *s = of(stream, "cuStreamEndCapture");
	if (!out) return CU_INVALID_VALUE;
	*out = NULL;
	pthread_mutex_lock(&mu);
	if (!s->capturing) r = CU_CAPTURE_UNMATCHED;
	else if (s->mode != MODE_RELAXED && !same_thread(s)) r = CU_CAPTURE_WRONG_THREAD;
	else {
		s->capturing = false;
		r = s->spoiled ? CU_CAPTURE_INVALIDATED : CU_OK;
	}
	pthread_mutex_unlock(&mu);
	if (r == CU_CAPTURE_INVALIDATED) {
		discard(&s->into->ops);
		free(s->into);
	}
	if (r) return r;
	s->into->users = 1;
	db_born(&s->into->thing, "graph", "captured");
	*out = s->into;
	return CU_OK;
}

static void forget(graph *g) {
	pthread_mutex_lock(&mu);
	bool last = --g->users == 0;
	pthread_mutex_unlock(&mu);
	if (last) discard(&g->ops);
}

static int instantiate(void **out, void *from, const char *call) {
	int r = db_enter();
	if (r || (r = db_unsafe())) return r;
	graph *g = from;
	db_use(&g->thing, "graph", call);
	if (!out) return CU_INVALID_VALUE;
	executable *x = db_alloc(sizeof *x);
	x->of = g;
	pthread_mutex_lock(&mu);
	g->users++;
	pthread_mutex_unlock(&mu);
	db_born(&x->thing, "executable graph", "instantiated");
	*out = x;
	return CU_OK;
}

#ifndef DOUBLE_OLD_DRIVER // CUDA 11.4 brought it
API int cuGraphInstantiateWithFlags(void **out, void *from, unsigned long long flags) {
	return flags ? CU_INVALID_VALUE : instantiate(out, from, "cuGraphInstantiateWithFlags");
}
#endif

API int cuGraphInstantiate_v2(void **out, void *from, void *node, char *log, size_t n) {
	(void)node, (void)log, (void)n;
	return instantiate(out, from, "cuGraphInstantiate");
}

API int cuGraphDestroy(void *from) {
	int r = db_enter();
	if (r) return r;
	graph *g = from;
	db_dead(&g->thing, "graph", "cuGraphDestroy");
	forget(g);
	return CU_OK;
}

API int cuGraphExecDestroy(void *from) {
	int r = db_enter();
	if (r) return r;
	executable *x = from;
	db_dead(&x->thing, "executable graph", "cuGraphExecDestroy");
	forget(x->of);
	return CU_OK;
}

static int replay(void *arg) {
	executable *x = arg;
	db_use(&x->thing, "executable graph", "the replay of a graph");
	for (db_op *op = x->of->ops.first; op && !db_lost(); op = op->next) perform(op);
	return CU_OK;
}

static void nothing(void *arg) { (void)arg; }

API int cuGraphLaunch(void *from, void *stream) {
	int r = db_enter();
	if (r) return r;
	executable *x = from;
	db_use(&x->thing, "executable graph", "cuGraphLaunch");
	db_stream *s = of(stream, "cuGraphLaunch");
	if (s->capturing) return CU_CAPTURE_UNSUPPORTED; // a child graph, in truth; nobody here makes one
	if (db_sticky_now()) {
		db_lose();
		return CU_ILLEGAL_ADDRESS;
	}
	return db_submit(stream, "cuGraphLaunch", replay, nothing, x, NULL);
}

API int cuEventCreate(void **out, unsigned flags) {
	int r = db_enter();
	if (r) return r;
	if (!out || flags > 7) return CU_INVALID_VALUE;
	event *e = db_alloc(sizeof *e);
	db_born(&e->thing, "event", "flags %u", flags);
	*out = e;
	return CU_OK;
}

static int stamp(void *arg) {
	event *e = arg;
	db_use(&e->thing, "event", "the recording of an event");
	clock_gettime(CLOCK_MONOTONIC, &e->at);
	e->recorded = true;
	return CU_OK;
}

API int cuEventRecord(void *from, void *stream) {
	int r = db_enter();
	if (r) return r;
	event *e = from;
	db_use(&e->thing, "event", "cuEventRecord");
	e->recorded = false;
	return db_submit(stream, "cuEventRecord", stamp, nothing, e, &e->captured);
}

API int cuEventSynchronize(void *from) {
	int r = db_enter();
	if (r || (r = db_unsafe())) return r;
	event *e = from;
	db_use(&e->thing, "event", "cuEventSynchronize");
	if (e->captured) return CU_CAPTURED_EVENT;
	pthread_mutex_lock(&mu);
	for (db_stream *s = streams; s; s = s->next)
		if (!s->capturing) drain(s);
	pthread_mutex_unlock(&mu);
	drain(&legacy);
	return db_lost() ? CU_ILLEGAL_ADDRESS : CU_OK;
}

API int cuEventElapsedTime(float *ms, void *from, void *to) {
	int r = db_enter();
	if (r) return r;
	const event *a = from, *b = to;
	db_use(&a->thing, "event", "cuEventElapsedTime");
	db_use(&b->thing, "event", "cuEventElapsedTime");
	if (!ms || !a->recorded || !b->recorded) return CU_INVALID_HANDLE;
	*ms = (float)((double)(b->at.tv_sec - a->at.tv_sec) * 1e3 + (double)(b->at.tv_nsec - a->at.tv_nsec) / 1e6);
	return CU_OK;
}

API int cuEventDestroy_v2(void *from) {
	int r = db_enter();
	if (r) return r;
	db_dead(&((event *)from)->thing, "event", "cuEventDestroy");
	return CU_OK;
}
