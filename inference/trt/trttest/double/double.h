// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What the C files of the double share. The double stands for libnvinfer,
// libnvonnxparser and libcuda at once, in tests: one shared object that is reached by
// all three names. It has the slots of ../../tables.h for one major version, computes
// networks with an interpreter of its own, and ends the process with a line that names
// the fault where the real libraries would crash or corrupt memory.
#ifndef FULMAR_DOUBLE_H
#define FULMAR_DOUBLE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))

// ---- settings.c: what steers the double, and what it counts.

// FULMAR_DOUBLE_* variables. They are read when the library is loaded and again at each
// call that is not part of a run (enqueue, copies, launches, synchronize), so that a test
// may set them between two steps. A counter starts again when its variable changes.
typedef struct {
	char shift[96];     // SHIFT=Class::method   that method sits one slot further, its own slot aborts; ours are called one slot further
	long oom;           // OOM=n                 the n-th memory taken on the device or page-locked fails with OUT_OF_MEMORY
	long sticky;        // STICKY=n              the n-th enqueue, graph launch or stream synchronize fails with ILLEGAL_ADDRESS, and all after it
	long driver;        // DRIVER=11040          what cuDriverGetVersion says
	long integrated;    // INTEGRATED=1          the GPU shares the host's memory, as on a Jetson
	long dla;           // DLA=2                 number of DLA cores
	long buildms;       // BUILDMS=500           how long a build takes with an empty timing cache
	long nodriver;      // NODRIVER=1            cuInit gives NO_DEVICE
	long failbuild;     // FAILBUILD=1           a build gives nothing and logs an error
	long cc;            // CC=87                 compute capability, 8.7
	long memory;        // MEMORY=8192           device memory in MiB; beyond it allocations fail
	long lazy;          // LAZY=1                streams do their work only when they are waited for
	char at_exit[512];  // LIVE_AT_EXIT=PATH     what lives is kept there, so that the last word is what was not freed
} db_settings;
const db_settings *db_get(void);
void db_reread(void);
bool db_oom_now(void);    // counts one allocation
bool db_sticky_now(void); // counts one enqueue or synchronize

_Noreturn void db_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *db_alloc(size_t n); // zeroed, never NULL
char *db_strdup(const char *s);

// A thing that must be freed by whoever made it. It stays as a tombstone after that.
typedef struct db_thing {
	uint64_t magic;
	const char *kind;
	char note[48];
	bool alive;
	struct db_thing *next; // all there ever were
} db_thing;
#define DB_THING 0x64626c5f7468696eULL
void db_born(db_thing *t, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
// db_use dies unless t is a live thing of that kind; doing names the call.
void db_use(const db_thing *t, const char *kind, const char *doing);
void db_dead(db_thing *t, const char *kind, const char *doing);

// ---- memory.c and device.c: the CUDA driver.

enum {
	CU_OK = 0, CU_INVALID_VALUE = 1, CU_OUT_OF_MEMORY = 2, CU_NOT_INITIALIZED = 3, CU_NO_DEVICE = 100, CU_INVALID_DEVICE = 101,
	CU_INVALID_IMAGE = 200, CU_INVALID_CONTEXT = 201, CU_NO_BINARY = 209, CU_INVALID_PTX = 218, CU_PTX_VERSION = 222, CU_INVALID_HANDLE = 400,
	CU_NOT_FOUND = 500, CU_ILLEGAL_ADDRESS = 700, CU_DESTROYED = 709, CU_CAPTURE_UNSUPPORTED = 900, CU_CAPTURE_INVALIDATED = 901,
	CU_CAPTURE_UNMATCHED = 903, CU_CAPTURE_IMPLICIT = 906, CU_CAPTURED_EVENT = 907, CU_CAPTURE_WRONG_THREAD = 908,
};
// db_enter is what each driver call begins with: initialized, not lost, a context.
int db_enter(void);
bool db_initialized(void);
bool db_lost(void);
void db_lose(void); // from now on every call gives ILLEGAL_ADDRESS
int db_driver(void);
int db_cc(void); // 87
int db_sms(void);
// db_take and db_give are device memory without the checks of a driver call.
int db_take(void **out, size_t n, const char *why);
void db_give(void *p);
// db_in_device is whether [p, p+n) lies within one live allocation on the device, or
// page-locked memory that is mapped into it.
bool db_in_device(const void *p, size_t n);
bool db_is_pinned(const void *p, size_t n);

// ---- stream.c

typedef struct db_stream db_stream;
// One piece of work. run gives a CU_ code; drop frees arg.
typedef struct db_op {
	const char *what;
	int (*run)(void *arg);
	void (*drop)(void *arg);
	void *arg;
	struct db_op *next;
} db_op;
// db_submit runs work on a stream, or keeps it while the stream is captured (*captured
// tells). It takes arg over.
int db_submit(void *stream, const char *what, int (*run)(void *), void (*drop)(void *), void *arg, bool *captured);
// db_unsafe is CAPTURE_UNSUPPORTED if this thread captures: such a call spoils it.
int db_unsafe(void);

// ---- onnx.c: a network as the file has it.

enum { DB_DIMS = 8, DB_INPUTS = 32 };
typedef struct { int n; int64_t d[DB_DIMS]; } db_shape;
enum { DB_NONE, DB_FLOAT, DB_INT }; // how a value is held: float32 or int64
enum { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT8 = 3, ONNX_INT32 = 6, ONNX_INT64 = 7 };

typedef struct {
	char *name;
	int elem;       // ONNX's element type, 0 if unknown
	int held;       // DB_FLOAT or DB_INT, for constants and inputs
	db_shape shape; // -1 where open
	void *data;     // constants
} db_value;
typedef struct { const uint8_t *p, *end; } db_bytes;
typedef struct {
	char *name, *type;
	int index, op, inputs, in[DB_INPUTS], out; // in: -1 where left out
	db_bytes raw;
} db_node;
typedef struct {
	uint8_t *bytes;
	int opset, values, room, nodes, inputs, outputs;
	db_value *value;
	db_node *node;
	int in[DB_INPUTS], out[DB_INPUTS];
	bool quantized;
} db_graph;
typedef struct { char text[240]; int node; } db_fault; // node -1: none in particular
db_graph *db_graph_read(const void *onnx, size_t n, db_fault *fault);
void db_graph_free(db_graph *g);
int64_t db_attr_int(const db_node *n, const char *name, int64_t otherwise);
int db_attr_ints(const db_node *n, const char *name, int64_t *out, int most); // count, -1 without
float db_attr_float(const db_node *n, const char *name, float otherwise);
bool db_attr_is(const db_node *n, const char *name, const char *text, bool otherwise);
bool db_attr_tensor(const db_node *n, const char *name, db_value *out);

// ---- shapes.c and ops.c: the interpreter.

typedef struct {
	db_shape shape;
	int held;
	bool known, owned; // known: data is there before a run (constants and what follows from shapes)
	void *data;
} db_cell;
typedef struct {
	const db_graph *g;
	db_cell *cell;
	bool ready;
} db_exec;
// db_exec_new works out all shapes for the given inputs' shapes, or says why not.
db_exec *db_exec_new(const db_graph *g, const db_shape *inputs, db_fault *fault);
int64_t db_exec_largest(const db_exec *x); // bytes of the largest value
// db_exec_run computes; in and out are the memory of inputs and outputs.
void db_exec_run(db_exec *x, void *const *in, void *const *out);
void db_exec_free(db_exec *x);
bool db_op_shape(db_exec *x, const db_node *n, db_fault *fault);
void db_op_run(db_exec *x, const db_node *n);
int db_op_number(const char *type); // -1: not supported
int64_t db_count(const db_shape *s);
// db_outputs gives the outputs' shapes, -1 where they follow an open input.
bool db_outputs(const db_graph *g, db_shape *out, db_fault *fault);

enum { OP_Mul, OP_Add, OP_Sub, OP_Relu, OP_Sigmoid, OP_Conv, OP_MaxPool, OP_Concat, OP_Slice, OP_Resize, OP_Reshape, OP_Transpose, OP_Constant, OP_Shape,
	OP_ReduceMax, OP_QuantizeLinear, OP_DequantizeLinear, OPS };

#endif
