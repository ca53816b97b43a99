// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for the memory calls of libcuda. Device memory is memory of the host that is
// known by its range, filled with what reads as NaN and followed by bytes that nobody
// may touch.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

enum { GUARD = 256, FILL = 0xff, GUARD_FILL = 0xc3 };

typedef struct block {
	db_thing thing;
	uint8_t *p;
	size_t n;
	bool pinned, mapped;
	struct block *next;
} block;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static block *live, *freed; // freed ones are kept as records only
static size_t used;

static int take(void **out, size_t n, bool pinned, bool mapped, const char *why) {
	*out = NULL;
	if (db_oom_now()) return CU_OUT_OF_MEMORY;
	size_t all = (size_t)db_get()->memory << 20;
	pthread_mutex_lock(&mu);
	bool full = n > all || (!pinned && used > all - n);
	if (!full && !pinned) used += n;
	pthread_mutex_unlock(&mu);
	if (full) return CU_OUT_OF_MEMORY;
	block *b = db_alloc(sizeof *b);
	b->p = aligned_alloc(GUARD, (n + GUARD - 1) / GUARD * GUARD + GUARD);
	if (!b->p) db_die("the host has no %zu bytes for the device's memory", n);
	memset(b->p, FILL, n);
	memset(b->p + n, GUARD_FILL, GUARD);
	b->n = n;
	b->pinned = pinned;
	b->mapped = mapped;
	db_born(&b->thing, pinned ? "page-locked memory" : "device memory", "%zu bytes%s%s", n, why ? ", " : "", why ? why : "");
	pthread_mutex_lock(&mu);
	b->next = live;
	live = b;
	pthread_mutex_unlock(&mu);
	*out = b->p;
	return CU_OK;
}

static int give(void *p, bool pinned, const char *call) {
	pthread_mutex_lock(&mu);
	block **at = &live, *b;
	while (*at && (*at)->p != p) at = &(*at)->next;
	if (!(b = *at)) {
		block *gone = freed;
		while (gone && gone->p != p) gone = gone->next;
		if (gone) db_die("%s: %s (%s) was freed before", call, gone->thing.kind, gone->thing.note);
		db_die("%s: %p is no address that was given out", call, p);
	}
	if (b->pinned != pinned) db_die("%s: this is %s", call, b->thing.kind);
	for (int i = 0; i < GUARD; i++)
		if (b->p[b->n + (size_t)i] != GUARD_FILL) db_die("%s (%s) was written to %d bytes past its end", b->thing.kind, b->thing.note, i + 1);
	*at = b->next;
	b->next = freed;
	freed = b;
	if (!pinned) used -= b->n;
	pthread_mutex_unlock(&mu);
	db_dead(&b->thing, b->thing.kind, call);
	memset(b->p, FILL, b->n);
	free(b->p);
	return CU_OK;
}

static const block *within(const void *p, size_t n) {
	const uint8_t *q = p;
	const block *b = live;
	while (b && !(q >= b->p && q < b->p + b->n && n <= (size_t)(b->p + b->n - q))) b = b->next;
	return b;
}

bool db_in_device(const void *p, size_t n) {
	pthread_mutex_lock(&mu);
	const block *b = within(p, n);
	bool ok = b && (!b->pinned || b->mapped);
	pthread_mutex_unlock(&mu);
	return ok;
}

bool db_is_pinned(const void *p, size_t n) {
	pthread_mutex_lock(&mu);
	const block *b = within(p, n);
	bool ok = b && b->pinned;
	pthread_mutex_unlock(&mu);
	return ok;
}

int db_take(void **out, size_t n, const char *why) { return take(out, n, false, false, why); }
void db_give(void *p) { give(p, false, "a free by the library"); }

static int begin(void) {
	db_reread();
	int r = db_enter();
	return r ? r : db_unsafe();
}

API int cuMemAlloc_v2(unsigned long long *out, size_t n) {
	void *p;
	int r = begin();
	if (r) return r;
	if (!out || n == 0) return CU_INVALID_VALUE;
	if ((r = take(&p, n, false, false, NULL))) return r;
	*out = (unsigned long long)(uintptr_t)p;
	return CU_OK;
}

API int cuMemFree_v2(unsigned long long p) {
	int r = begin();
	if (r) return r;
	return p ? give((void *)(uintptr_t)p, false, "cuMemFree") : CU_OK;
}

API int cuMemHostAlloc(void **out, size_t n, unsigned flags) {
	enum { PORTABLE = 1, DEVICEMAP = 2, WRITECOMBINED = 4 };
	int r = begin();
	if (r) return r;
	if (!out || n == 0 || flags & ~(unsigned)(PORTABLE | DEVICEMAP | WRITECOMBINED)) return CU_INVALID_VALUE;
	return take(out, n, true, flags & DEVICEMAP, NULL);
}

API int cuMemFreeHost(void *p) {
	int r = begin();
	if (r) return r;
	return p ? give(p, true, "cuMemFreeHost") : CU_INVALID_VALUE;
}

API int cuMemHostGetDevicePointer_v2(unsigned long long *out, void *p, unsigned flags) {
	int r = db_enter();
	if (r) return r;
	if (!out || flags || !db_is_pinned(p, 1) || !db_in_device(p, 1)) return CU_INVALID_VALUE;
	*out = (unsigned long long)(uintptr_t)p;
	return CU_OK;
}

API int cuMemGetInfo_v2(size_t *available, size_t *all) {
	int r = db_enter();
	if (r) return r;
	if (!available || !all) return CU_INVALID_VALUE;
	*all = (size_t)db_get()->memory << 20;
	pthread_mutex_lock(&mu);
	*available = *all - used;
	pthread_mutex_unlock(&mu);
	return CU_OK;
}

typedef struct {
	void *to;
	const void *from;
	size_t n;
	bool in;
} copy;

static int copy_run(void *arg) {
	copy *c = arg;
	// The memory may be gone by the time a graph is replayed.
	if (!db_in_device(c->in ? c->to : c->from, c->n)) {
		fprintf(stderr, "double: a copy of %zu bytes: its device memory is freed\n", c->n);
		return CU_ILLEGAL_ADDRESS;
	}
	memcpy(c->to, c->from, c->n);
	return CU_OK;
}

static int submit(void *to, const void *from, size_t n, bool in, void *stream) {
	int r = db_enter();
	if (r) return r;
	if (!to || !from || !db_in_device(in ? to : from, n)) return CU_INVALID_VALUE;
	copy *c = db_alloc(sizeof *c);
	*c = (copy){to, from, n, in};
	return db_submit(stream, "copy", copy_run, free, c, NULL);
}

API int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t n, void *stream) {
	return submit((void *)(uintptr_t)to, from, n, true, stream);
}

API int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t n, void *stream) {
	return submit(to, (const void *)(uintptr_t)from, n, false, stream);
}
