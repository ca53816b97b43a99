// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What the files that stand for libnvinfer and libnvonnxparser share: objects with the
// vtables of one major version.
#ifndef FULMAR_DOUBLE_OBJECT_H
#define FULMAR_DOUBLE_OBJECT_H

#include <pthread.h>
#include <stdatomic.h>

#include "../../tables.h"
#include "double.h"

enum { DB_MAJOR = DOUBLE_MAJOR == 8 ? FL_M8 : DOUBLE_MAJOR == 10 ? FL_M10 : FL_M11 };

typedef struct db_object db_object;
// The implementation, which methods get as this. The parser's interfaces have no other.
typedef struct {
	void **vtable;
	uint64_t magic;
	db_object *object;
} db_impl;

struct db_object {
	// The public object: what a program holds and deletes.
	void **vtable;
	db_impl *impl;
	uint64_t magic;
	db_impl inner;
	db_thing thing;
	enum fl_class class;
	bool owned;        // by its parent, which frees it
	db_object *parent; // must live longer
	atomic_int children;
	void *logger;
	void *data;
	void (*drop)(void *data);
	db_object *next;
};

typedef struct {
	enum fl_method method;
	void *function;
} db_method;
extern const db_method db_network_methods[], db_build_methods[], db_config_methods[], db_engine_methods[], db_context_methods[];

// db_objects makes the vtables when a library is first used.
void db_objects(void);
// db_new makes an object; the program gets db_public of it, or db_plain for the parser's.
db_object *db_new(enum fl_class class, db_object *parent, bool owned, void *data, void (*drop)(void *));
static inline void *db_public(db_object *o) { return o ? (void *)o : NULL; }
static inline void *db_plain(db_object *o) { return o ? (void *)&o->inner : NULL; }
// db_self is the data of this, or ends the process if this is not one of that class.
void *db_self(void *self, enum fl_method m);
db_object *db_self_object(void *self, enum fl_method m);
// db_argument is the object a program gives by its public address.
db_object *db_argument(const void *public, enum fl_class class, enum fl_method m);
void db_delete_plain(void *self);
void db_end_owned(db_object *o); // a parent frees what it owns

// db_log calls the program's logger, through its slot.
void db_log(void *logger, enum fl_value severity, const char *format, ...) __attribute__((format(printf, 3, 4)));
// db_meet checks that an object which the program made is what it says.
void db_meet(void *object, enum fl_method language, enum fl_method info, const char *kind);
// db_ours is a method of such an object.
void *db_ours(void *object, enum fl_method m);

static inline int32_t db_v(enum fl_value v) { return fl_values[DB_MAJOR][v]; }
static inline int32_t db_slot(enum fl_method m) { return fl_slots[DB_MAJOR][m]; }
int32_t db_version(void);       // as getInferLibVersion gives it
const char *db_version_text(void);

// Dims, as wide as this major has them.
#if DOUBLE_MAJOR == 8
typedef struct { int32_t n; int32_t d[DB_DIMS]; } db_dims;
#else
typedef struct { int32_t n; int64_t d[DB_DIMS]; } db_dims;
#endif
db_dims db_to_dims(const db_shape *s);
bool db_from_dims(const db_dims *d, db_shape *out);

// A network, its tensors and layers.
typedef struct {
	uint32_t flags;
	bool strong;
	db_graph *graph;
	size_t onnx_size;
	db_object *parser, **tensor, **layer; // tensors: inputs, then outputs
	int tensors, layers;
} db_network;
typedef struct { char *name; db_shape shape; } db_tensor;
typedef struct { const db_node *node; } db_layer;

enum { DB_PROFILES = 4 };
typedef struct { db_shape shape[3]; } db_range; // least, best, most
typedef struct {
	int count;
	char *name[DB_INPUTS];
	db_range range[DB_INPUTS];
	unsigned set[DB_INPUTS]; // bits
} db_profile;

typedef struct {
	int count, room;
	uint64_t *known; // layers that were timed
} db_timings;

typedef struct {
	uint32_t flags; // bits, by their numbers
	int32_t device, dla_core, verbosity, level, aux;
	db_object *cache, *profile[DB_PROFILES];
	int profiles;
	void *monitor, *calibrator;
} db_config;

// What a plan says, all but the network.
enum { PLAN_INT8 = 1, PLAN_FP16 = 2, PLAN_STRONG = 4, PLAN_DETAILED = 8 };
typedef struct {
	char magic[8];
	int32_t version, major, cc, sms;
	uint32_t options;
	int32_t dla_core, profiles, inputs;
	db_range range[DB_PROFILES][DB_INPUTS];
	uint64_t onnx_size;
} db_plan;
#define DB_PLAN_MAGIC "FLDPLAN"
uint32_t db_crc(const void *p, size_t n);
db_object *db_memory(void *bytes, size_t n, void *logger); // takes bytes over

// db_driver_is_new_enough says so in the log if it is not.
bool db_driver_is_new_enough(void *logger);

// A loaded plan.
typedef struct {
	db_plan plan;
	db_graph *graph;
	db_shape out[DB_INPUTS];
	void *weights; // on the device
	int64_t scratch;
	char *inspected;
} db_engine;
db_object *db_context(db_object *engine, bool own_memory);
int db_io_count(const db_engine *e);
// db_io finds a tensor by name: inputs come first, then outputs; -1 without.
int db_io(const db_engine *e, const char *name);
const char *db_io_name(const db_engine *e, int i);

#endif
