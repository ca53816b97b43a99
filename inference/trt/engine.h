// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// An engine's insides, for engine.c and picture.c.
#ifndef FULMAR_TRT_ENGINE_H
#define FULMAR_TRT_ENGINE_H

#include "inner.h"

enum {
	MAX_BATCH = 64, // more cameras than that are not on one board
	STEPS = 7,      // batch sizes that have a context: 1, 2, 4 .. 64, the last cut to max_batch
};
#define MAX_BYTES ((size_t)1 << 30) // of one tensor: 64 pictures of 1920 x 1280 as float32 are more

// port is an input or output with its memory.
typedef struct {
	fl_tensor t;
	bool open;   // its first dimension is the batch
	bool mapped; // host and device see the same memory
	bool filled; // the device fills it: nothing is copied
	size_t element, elements;
	void *pinned; // page-locked
	int64_t *wide; // what the host sees where the device has int32
	cu_ptr device;
} port;

typedef struct {
	int32_t n;
	void *context;
	cu_exec graph;
	int runs;
	bool tried;
} step;

// picture is the memory of a picture on its way into one place of the batch.
typedef struct {
	void *host;
	cu_ptr device;
	size_t size;
	bool mapped;
} picture;

struct fl_engine {
	fl_lib *lib;
	void *engine;
	int32_t count, max_batch, graphs;
	port ports[FL_MAX_TENSORS];
	step steps[STEPS];
	cu_stream stream;
	cu_ptr scratch;
	int64_t scratch_size;
	bool capturing;
	picture pictures[MAX_BATCH];
};

// share is the size of the first n pictures of a tensor, in bytes.
static inline size_t share(const fl_engine *e, const port *p, int32_t n) {
	bool batch = p->t.shape[0] == e->max_batch;
	return p->elements * p->element / (batch ? (size_t)e->max_batch : 1) * (batch ? (size_t)n : 1);
}

void fl_pictures_free(fl_engine *e);

#endif
