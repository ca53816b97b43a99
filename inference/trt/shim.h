// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The border between Go and the libraries: plain C, no NVIDIA header. Everything
// behind it is opened at run time. Rules that hold for all of it:
//
//   - A function that can fail returns 0 or a fl_kind and fills *err.
//   - No pointer into the Go heap is kept after a call returns.
//   - Each function makes the device's context current on the thread it runs on, so
//     Go may call from any thread.
//   - Nothing calls back into Go: log lines and progress lie here until Go takes them.
#ifndef FULMAR_TRT_SHIM_H
#define FULMAR_TRT_SHIM_H

#include <stddef.h>
#include <stdint.h>

// What a failed call was about; the Go side makes its errors of these.
enum fl_kind {
	FL_OK = 0,
	FL_LIBRARY = 1, // a library is missing, unknown or lacks a symbol
	FL_DRIVER = 2,  // no CUDA driver, no device, or a driver that is too old
	FL_NETWORK = 3, // the ONNX file is refused
	FL_PLAN = 4,    // the plan is refused: another version, another GPU, damaged
	FL_CALL = 5,    // a call failed that nothing above describes
	FL_MEMORY = 6,  // the device or the host has no room
	FL_DEVICE = 7,  // the device's context is lost; the process has to end
	FL_CANCELLED = 8,
};

typedef struct {
	int32_t kind;
	int32_t code;   // CUresult, or 0
	char call[64];  // "cuMemAlloc", "Builder::buildSerializedNetwork"
	char name[64];  // "CUDA_ERROR_OUT_OF_MEMORY"; "" where there is none
	char text[600]; // in words, one line
} fl_error;

typedef struct fl_lib fl_lib;
typedef struct fl_engine fl_engine;

enum { FL_MAX_DIMS = 8, FL_MAX_TENSORS = 32, FL_NAME = 128 };

typedef struct {
	int32_t version;        // as getInferLibVersion says it: 8502, 100300, 110100, 10701 (RTX 1.7.1)
	int32_t major;          // of the table in use: 8, 10, 11
	int32_t rtx;            // it is TensorRT for RTX
	int32_t parser_version; // 0 without a parser
	int32_t driver;         // cuDriverGetVersion: 11040; 0 without a driver
	int32_t devices;
	int32_t cc_major, cc_minor, sms, integrated;
	int32_t dla_cores; // as the runtime counts them; -1 while unknown
	int64_t memory;    // of the device, bytes
	char device[FL_NAME];
} fl_info;

// fl_open opens libraries by their paths; parser may be NULL. cuda may be NULL: the
// library then can build where it needs no device, and run nothing. infer may be NULL:
// then there is the driver and our kernels, no more.
int fl_open(const char *infer, const char *parser, const char *cuda, fl_lib **out, fl_error *err);
void fl_get_info(fl_lib *l, fl_info *out);
// fl_start makes the runtime, which plans need and which knows the DLA cores.
int fl_start(fl_lib *l, fl_error *err);
// fl_close frees what is open; engines must be closed before.
void fl_close(fl_lib *l);

// fl_log_take copies the oldest waiting log line and gives its severity (0 internal
// error to 4 verbose), or -1 when none waits. lost counts lines dropped because
// nobody took them.
int fl_log_take(fl_lib *l, char *line, size_t n, uint64_t *lost);
// fl_log_level drops lines above that severity where they are made.
void fl_log_level(fl_lib *l, int32_t severity);

typedef struct {
	int32_t fp16, int8;
	int32_t max_batch; // profile from 1 to this where the first dimension is open
	int32_t level;     // builder optimization level, -1 for the library's own
	int32_t threads;   // 0 for the library's own
	int32_t dla_core;  // -1 for the GPU
	int64_t workspace; // bytes, 0 for the library's own
	const void *timing; // timing cache, or NULL
	size_t timing_size;
	const void *calibration; // calibration cache, or NULL
	size_t calibration_size;
} fl_build_options;

// fl_watch lies where a build can be watched and cancelled from another thread.
typedef struct {
	int32_t cancel; // set to 1 to cancel, atomically
	int32_t done, of;
	char phase[FL_NAME];
	int32_t lock; // guards the three above it
} fl_watch;

void fl_watch_read(fl_watch *w, int32_t *done, int32_t *of, char *phase, size_t n);
void fl_watch_cancel(fl_watch *w);

typedef struct {
	void *plan;
	size_t plan_size;
	void *timing; // NULL if the library gave none
	size_t timing_size;
	int32_t layers;
	char *on_gpu; // names of layers that DLA cannot run, one a line; NULL without DLA
} fl_built;

int fl_build(fl_lib *l, const void *onnx, size_t size, const fl_build_options *o, fl_watch *w, fl_built *out, fl_error *err);
void fl_built_free(fl_built *b);

typedef struct {
	char name[FL_NAME];
	int32_t input;
	int32_t type; // FL_FLOAT32 or FL_INT64, as the host sees it
	int32_t dims;
	int64_t shape[FL_MAX_DIMS]; // with the largest batch first
	void *host;                 // page-locked, or mapped into the device on boards
	size_t bytes;
} fl_tensor;

enum { FL_FLOAT32 = 0, FL_INT64 = 1 };

typedef struct {
	int32_t graphs;   // capture and replay CUDA graphs
	int32_t dla_core; // -1 for the GPU
} fl_engine_options;

int fl_engine_load(fl_lib *l, const void *plan, size_t size, const fl_engine_options *o, fl_engine **out, fl_error *err);
int32_t fl_engine_tensors(fl_engine *e);
int32_t fl_engine_max_batch(fl_engine *e);
int64_t fl_engine_scratch(fl_engine *e); // device memory between layers, bytes
const fl_tensor *fl_engine_tensor(fl_engine *e, int32_t i);
// fl_engine_run computes the first n pictures. err is filled as everywhere.
int fl_engine_run(fl_engine *e, int32_t n, fl_error *err);
// fl_engine_raw runs n pictures times times in a bare loop of enqueueV3 and a
// synchronize, with the copies of inputs and outputs or without, and never through a
// graph: for comparisons. ns gets the time taken.
int fl_engine_raw(fl_engine *e, int32_t n, int32_t times, int32_t copies, int64_t *ns, fl_error *err);
// fl_engine_graphs tells for how many batch sizes a graph is replayed.
int32_t fl_engine_graphs(fl_engine *e);
// fl_engine_inspect gives the library's description of the layers as JSON, to be
// freed with free, or NULL.
char *fl_engine_inspect(fl_engine *e);
void fl_engine_close(fl_engine *e);

// fl_picture_room gives size bytes of page-locked memory for the picture of one place
// in the batch; what was there before is gone. From the first call on the first input is
// filled by fl_picture_fill alone, and what the host writes into it is not looked at; an
// engine that has run already refuses.
int fl_picture_room(fl_engine *e, int32_t index, size_t size, void **host, fl_error *err);
// fl_picture_fill copies the first bytes of that memory to the device and runs the
// kernel over them. params begin with the two device addresses (source, destination), which
// are written here.
int fl_picture_fill(fl_engine *e, int32_t index, size_t bytes, const char *kernel, const void *params, size_t params_size,
	const uint32_t grid[3], const uint32_t block[3], fl_error *err);
// fl_kernels loads the kernels that fl_picture_fill runs, as PTX text that ends with 0.
int fl_kernels(fl_lib *l, const char *ptx, fl_error *err);
// fl_kernel_once runs a kernel once over a copy of src and gives what it wrote: for
// checks. params are as in fl_picture_fill. With graph it goes through a CUDA graph.
// times > 0 measures too: ns[0] gets the time of that many runs with the copy of src
// before each, ns[1] without; each run is waited for.
int fl_kernel_once(fl_lib *l, const char *kernel, const void *params, size_t params_size, const uint32_t grid[3], const uint32_t block[3],
	const void *src, size_t src_size, void *dst, size_t dst_size, int32_t graph, int32_t times, int64_t ns[2], fl_error *err);
// fl_fault runs a kernel that faults, to see how that is survived.
int fl_fault(fl_lib *l, const char *kernel, fl_error *err);
// fl_sticky is 1 once the device's context is lost.
int32_t fl_sticky(fl_lib *l);

#endif
