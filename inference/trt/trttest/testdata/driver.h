// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What the parts of the test driver share: a small program that uses the double as the
// bridge does, through the tables, and prints what it sees.
#ifndef FULMAR_DOUBLE_DRIVER_H
#define FULMAR_DOUBLE_DRIVER_H

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tables.h"

extern int T;       // column of the tables
extern int version; // as fl_since has it
extern void *infer, *parser, *cuda;
extern void *logger, *monitor, *calibrator, *calibrator_cached; // objects of ours
extern int cancel_at;                                           // step at which the monitor cancels, -1: never

static inline void *impl(void *object) { return ((void **)object)[1]; }
static inline void *slot(void *self, enum fl_method m) { return (*(void ***)self)[fl_slots[T][m]]; }
static inline bool has(enum fl_method m) { return fl_slots[T][m] >= 0 && fl_since[T][m] <= version; }
static inline int32_t val(enum fl_value v) { return fl_values[T][v]; }
static inline void del(void *o) {
	if (o) ((void (*)(void *))(*(void ***)o)[1])(o);
}
// CALL(type, object, method, argument types)(impl(object), arguments)
#define CALL(ret, o, m, ...) ((ret(*)(void *, ##__VA_ARGS__))slot(impl(o), FL_##m))
#define PLAIN(ret, o, m, ...) ((ret(*)(void *, ##__VA_ARGS__))slot(o, FL_##m))
#define CU(name, types, ...) cu(#name, ((int(*) types)dlsym(cuda, #name))(__VA_ARGS__))
int cu(const char *name, int code); // prints a code that is not 0

typedef struct { int32_t n; int32_t d[8]; } dims32;
typedef struct { int32_t n; int64_t d[8]; } dims64;
typedef union { dims32 narrow; dims64 wide; } dims;
dims pack(int n, const int64_t *d);
dims64 shape(void *o, enum fl_method m, const char *name);
dims64 profile_shape(void *engine, const char *name, int32_t select);
void print_shape(const char *what, dims64 d);

typedef struct {
	const void *onnx;
	size_t onnx_size;
	void *cache; // of an earlier build, or NULL
	size_t cache_size;
	int64_t batch; // of profiles, 0: none
	bool int8, dla, watch, inspect;
	void *calibrator;
} order;
typedef struct {
	void *plan, *cache;
	size_t plan_size, cache_size;
} goods;
bool build(const order *o, goods *out);
void *start(void); // a runtime, after the driver
void *load(void *runtime, const void *plan, size_t n);
void stop(void *runtime);
void *context(void *engine, bool bare);
int life(const void *onnx, size_t n);
int lives(const void *onnx, size_t n); // several at once
int misuse(const char *name, const void *onnx, size_t n);
int driver_calls(const void *onnx, size_t n);

#endif
