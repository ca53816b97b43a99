// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What the shim's C files share.
#ifndef FULMAR_TRT_INNER_H
#define FULMAR_TRT_INNER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "shim.h"
#include "tables.h"

// The CUDA driver's types, as cuda.h has them: pointers and ints.
typedef int cu_result;
typedef int cu_device;
typedef void *cu_context, *cu_stream, *cu_event, *cu_graph, *cu_exec, *cu_module, *cu_function;
typedef unsigned long long cu_ptr; // CUdeviceptr

// CUDA_CALLS lists each driver call once: name of the symbol, our name, arguments.
#define CUDA_CALLS(X) \
	X("cuInit", init, (unsigned)) \
	X("cuDriverGetVersion", driver_version, (int *)) \
	X("cuDeviceGetCount", device_count, (int *)) \
	X("cuDeviceGet", device_get, (cu_device *, int)) \
	X("cuDeviceGetName", device_name, (char *, int, cu_device)) \
	X("cuDeviceGetAttribute", device_attribute, (int *, int, cu_device)) \
	X("cuDeviceTotalMem_v2", device_memory, (size_t *, cu_device)) \
	X("cuDevicePrimaryCtxRetain", primary_retain, (cu_context *, cu_device)) \
	X("cuDevicePrimaryCtxRelease_v2", primary_release, (cu_device)) \
	X("cuCtxSetCurrent", set_current, (cu_context)) \
	X("cuMemAlloc_v2", mem_alloc, (cu_ptr *, size_t)) \
	X("cuMemFree_v2", mem_free, (cu_ptr)) \
	X("cuMemHostAlloc", host_alloc, (void **, size_t, unsigned)) \
	X("cuMemFreeHost", host_free, (void *)) \
	X("cuMemHostGetDevicePointer_v2", host_device_pointer, (cu_ptr *, void *, unsigned)) \
	X("cuMemcpyHtoDAsync_v2", copy_in, (cu_ptr, const void *, size_t, cu_stream)) \
	X("cuMemcpyDtoHAsync_v2", copy_out, (void *, cu_ptr, size_t, cu_stream)) \
	X("cuStreamCreate", stream_create, (cu_stream *, unsigned)) \
	X("cuStreamDestroy_v2", stream_destroy, (cu_stream)) \
	X("cuStreamSynchronize", stream_sync, (cu_stream)) \
	X("cuStreamBeginCapture_v2", capture_begin, (cu_stream, int)) \
	X("cuStreamEndCapture", capture_end, (cu_stream, cu_graph *)) \
	X("cuGraphLaunch", graph_launch, (cu_exec, cu_stream)) \
	X("cuGraphExecDestroy", exec_destroy, (cu_exec)) \
	X("cuGraphDestroy", graph_destroy, (cu_graph)) \
	X("cuModuleLoadData", module_load, (cu_module *, const void *)) \
	X("cuModuleGetFunction", module_function, (cu_function *, cu_module, const char *)) \
	X("cuModuleUnload", module_unload, (cu_module)) \
	X("cuLaunchKernel", launch, (cu_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, cu_stream, void **, void **)) \
	X("cuGetErrorName", error_name, (cu_result, const char **)) \
	X("cuGetErrorString", error_string, (cu_result, const char **))

typedef struct {
	void *dl; // NULL: there is no driver
#define X(symbol, name, args) cu_result(*name) args;
	CUDA_CALLS(X)
#undef X
	// Which of the two a driver has depends on its age (11.4 brought the first).
	cu_result (*instantiate)(cu_exec *, cu_graph, unsigned long long);
	cu_result (*instantiate_old)(cu_exec *, cu_graph, void *, char *, size_t);
	cu_device device;
	cu_context context;
} cuda;

enum { LOG_LINES = 512, LOG_BYTES = 1000 };

// mail keeps log lines until Go takes them: the library logs from threads of its own,
// also while a call of ours is in it, and may log faster than anybody reads. The
// oldest line goes when the ring is full, and is counted.
typedef struct {
	pthread_mutex_t mu;
	char *line[LOG_LINES];
	int8_t severity[LOG_LINES];
	uint32_t head, count;
	uint64_t lost;
	uint64_t errors; // error lines ever
	char last_error[LOG_BYTES];
	atomic_int level;
} mail;

// object is an object of ours that the library calls: its first word is the vtable.
typedef struct {
	void **vtable;
	void *vt[16];
	struct fl_lib *lib;
	fl_watch *watch;
	const void *cache;
	size_t cache_size;
} object;

struct fl_lib {
	void *infer, *parser;
	int major;       // index into the tables
	int32_t version; // major*10000 + minor*100 + patch, for fl_since
	fl_info info;
	void *(*make_runtime)(void *, int32_t);
	void *(*make_builder)(void *, int32_t);
	void *(*make_parser)(void *, void *, int);
	cuda cu;
	object logger;
	mail mail;
	void *runtime; // made when the first plan is loaded
	pthread_mutex_t mu;
	cu_module kernels;
	atomic_int sticky;
};

// A method of a library's object: the vtable is that of its implementation, the
// second word of the object, and gets it as this. Interfaces of the parser are plain.
static inline void *fl_impl(void *object) { return ((void **)object)[1]; }
static inline void *fl_slot_of(const fl_lib *l, void *self, enum fl_method m) {
	return (*(void ***)self)[fl_slots[l->major][m]];
}
// METHOD(type of return, object, method, argument types)(fl_impl(object), ...) reads
// as a call; PLAIN is the same for the parser.
#define METHOD(l, ret, obj, m, ...) ((ret(*)(void *, ##__VA_ARGS__))fl_slot_of(l, fl_impl(obj), FL_##m))
#define PLAIN(l, ret, obj, m, ...) ((ret(*)(void *, ##__VA_ARGS__))fl_slot_of(l, obj, FL_##m))

// fl_has tells whether this library has a method.
static inline bool fl_has(const fl_lib *l, enum fl_method m) {
	return fl_slots[l->major][m] >= 0 && l->version >= fl_since[l->major][m];
}
static inline int32_t fl_v(const fl_lib *l, enum fl_value v) { return fl_values[l->major][v]; }

// Dims by width; both begin with the count.
typedef struct { int32_t n; int32_t d[FL_MAX_DIMS]; } dims32;
typedef struct { int32_t n; int64_t d[FL_MAX_DIMS]; } dims64;
typedef union { dims32 d32; dims64 d64; } dims_any;
void fl_dims_put(const fl_lib *l, dims_any *to, const dims64 *from);
// fl_dims_get calls a method that gives Dims by value.
dims64 fl_dims_get(const fl_lib *l, void *obj, enum fl_method m, const char *name);

// fl_delete frees an object of the library: the deleting destructor is the second
// entry of its own (public) vtable.
void fl_delete(void *obj);
void fl_parser_delete(const fl_lib *l, void *parser);

int fl_fail(fl_error *err, enum fl_kind kind, const char *call, const char *format, ...) __attribute__((format(printf, 4, 5)));
// fl_cuda makes an error of what a driver call gave; FL_OK stays.
int fl_cuda(fl_lib *l, fl_error *err, const char *call, cu_result r);
// fl_lost notes an error after which the context is gone.
bool fl_is_sticky(cu_result r);
// fl_enter refuses a lost device and makes the context current.
int fl_enter(fl_lib *l, fl_error *err);
// fl_errors counts error lines so far; fl_since_errors gives the last one if there is
// a newer one than that, else "".
uint64_t fl_errors(fl_lib *l);
void fl_last_error(fl_lib *l, uint64_t since, char *out, size_t n);

// fl_about_memory tells whether an error line of the library is about a lack of it:
// its calls give no code.
bool fl_about_memory(const char *line);

int fl_cuda_open(fl_lib *l, const char *path, fl_error *err);
void fl_cuda_close(fl_lib *l);
cu_result fl_instantiate(cuda *c, cu_exec *out, cu_graph graph);
int fl_runtime(fl_lib *l, fl_error *err);

void fl_logger_init(fl_lib *l);
void fl_monitor_init(fl_lib *l, object *o, fl_watch *w);
void fl_calibrator_init(fl_lib *l, object *o, const void *cache, size_t size);
void fl_mail_put(fl_lib *l, int severity, const char *text);

#endif
