// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// A loaded plan: its tensors' memory, contexts, graphs, and a run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine.h"

// bytes_of gives the size of one element on the device and its type on the host; 0 for
// one that nobody here can write or read.
static size_t bytes_of(const fl_lib *l, int32_t type, int32_t *host) {
	if (type == fl_v(l, FL_DataType_kFLOAT)) return *host = FL_FLOAT32, 4;
	if (type == fl_v(l, FL_DataType_kINT64)) return *host = FL_INT64, 8;
	if (type == fl_v(l, FL_DataType_kINT32)) return *host = FL_INT64, 4; // 8 has no INT64: its parser narrows
	return 0;
}

// shape_of gives the largest shape of a tensor: what is open is the batch.
static int shape_of(fl_engine *e, port *p, fl_error *err) {
	fl_lib *l = e->lib;
	fl_tensor *t = &p->t;
	dims64 d = fl_dims_get(l, e->engine, FL_CudaEngine_getTensorShape, t->name);
	if (d.n < 1) return fl_fail(err, FL_PLAN, "ICudaEngine::getTensorShape", "tensor %s has no shape", t->name);
	p->open = d.d[0] < 0;
	if (p->open && t->input) {
		void *f = fl_slot_of(l, fl_impl(e->engine), FL_CudaEngine_getProfileShape);
		int32_t most = fl_v(l, FL_OptProfileSelector_kMAX);
		if (fl_dims_bits[l->major] == 64) d.d[0] = ((dims64(*)(void *, const char *, int32_t, int32_t))f)(fl_impl(e->engine), t->name, 0, most).d[0];
		else d.d[0] = ((dims32(*)(void *, const char *, int32_t, int32_t))f)(fl_impl(e->engine), t->name, 0, most).d[0];
		if (d.d[0] < 1 || d.d[0] > MAX_BATCH) return fl_fail(err, FL_PLAN, "ICudaEngine::getProfileShape", "input %s takes a batch of %lld, wants 1 to %d", t->name, (long long)d.d[0], MAX_BATCH);
		if (d.d[0] > e->max_batch) e->max_batch = (int32_t)d.d[0];
	}
	t->dims = d.n;
	memcpy(t->shape, d.d, sizeof t->shape);
	return FL_OK;
}

static int describe(fl_engine *e, fl_error *err) {
	fl_lib *l = e->lib;
	void *self = fl_impl(e->engine);
	int32_t n = METHOD(l, int32_t, e->engine, CudaEngine_getNbIOTensors)(self);
	if (n < 2 || n > FL_MAX_TENSORS) return fl_fail(err, FL_PLAN, "ICudaEngine::getNbIOTensors", "%d inputs and outputs, wants 2 to %d", n, FL_MAX_TENSORS);
	e->max_batch = 1;
	for (int32_t i = 0; i < n; i++) {
		port *p = &e->ports[i];
		fl_tensor *t = &p->t;
		const char *name = METHOD(l, const char *, e->engine, CudaEngine_getIOTensorName, int32_t)(self, i);
		if (!name || strlen(name) >= sizeof t->name) return fl_fail(err, FL_PLAN, "ICudaEngine::getIOTensorName", "tensor %d has no name, or one over %d bytes", i, FL_NAME - 1);
		snprintf(t->name, sizeof t->name, "%s", name);
		t->input = METHOD(l, int32_t, e->engine, CudaEngine_getTensorIOMode, const char *)(self, name) == fl_v(l, FL_TensorIOMode_kINPUT);
		int32_t type = METHOD(l, int32_t, e->engine, CudaEngine_getTensorDataType, const char *)(self, name);
		if (!(p->element = bytes_of(l, type, &t->type)))
			return fl_fail(err, FL_PLAN, "ICudaEngine::getTensorDataType", "tensor %s has elements of type %d; float32, int32 and int64 are known, export the network with those", name, type);
		if (METHOD(l, int32_t, e->engine, CudaEngine_getTensorLocation, const char *)(self, name) != fl_v(l, FL_TensorLocation_kDEVICE))
			return fl_fail(err, FL_PLAN, "ICudaEngine::getTensorLocation", "tensor %s wants to lie in the host's memory (a shape tensor): export the network with fixed shapes", name);
		if (METHOD(l, int32_t, e->engine, CudaEngine_getTensorFormat, const char *)(self, name) != fl_v(l, FL_TensorFormat_kLINEAR))
			return fl_fail(err, FL_PLAN, "ICudaEngine::getTensorFormat", "tensor %s is not laid out row by row: build the engine anew", name);
		int rc = shape_of(e, p, err);
		if (rc) return rc;
		e->count++;
	}
	return FL_OK;
}

// sizes fixes the shapes of outputs, which follow from the inputs', and all sizes.
static int sizes(fl_engine *e, void *context, fl_error *err) {
	fl_lib *l = e->lib;
	for (int32_t i = 0; i < e->count; i++) {
		port *p = &e->ports[i];
		fl_tensor *t = &p->t;
		if (!t->input) {
			dims64 d = fl_dims_get(l, context, FL_ExecutionContext_getTensorShape, t->name);
			if (d.n < 1) return fl_fail(err, FL_PLAN, "IExecutionContext::getTensorShape", "output %s has no shape", t->name);
			t->dims = d.n;
			memcpy(t->shape, d.d, sizeof t->shape);
		}
		size_t n = 1;
		for (int k = 0; k < t->dims; k++) {
			if (t->shape[k] < 1 || n > MAX_BYTES / (size_t)t->shape[k])
				return fl_fail(err, FL_PLAN, "IExecutionContext::getTensorShape", "tensor %s has a dimension that depends on the data, or over %zu MiB; export it with fixed sizes", t->name, MAX_BYTES >> 20);
			n *= (size_t)t->shape[k];
		}
		p->elements = n;
		t->bytes = n * (t->type == FL_INT64 ? 8 : 4);
	}
	return FL_OK;
}

// memory takes host and device memory. On a board whose GPU shares the memory one
// block serves both; elsewhere the host's is page-locked, so that copies need no stop.
static int memory(fl_engine *e, port *p, fl_error *err) {
	fl_lib *l = e->lib;
	cuda *c = &l->cu;
	enum { DEVICEMAP = 2 }; // CU_MEMHOSTALLOC_DEVICEMAP
	int rc;
	if ((rc = fl_cuda(l, err, "cuMemHostAlloc", c->host_alloc(&p->pinned, p->elements * p->element, DEVICEMAP)))) return rc;
	memset(p->pinned, 0, p->elements * p->element);
	p->t.host = p->pinned;
	if (p->element == 4 && p->t.type == FL_INT64 && !(p->t.host = p->wide = calloc(p->elements, 8)))
		return fl_fail(err, FL_MEMORY, "calloc", "%zu bytes for tensor %s", p->elements * 8, p->t.name);
	if (l->info.integrated) {
		p->mapped = true;
		return fl_cuda(l, err, "cuMemHostGetDevicePointer", c->host_device_pointer(&p->device, p->pinned, 0));
	}
	return fl_cuda(l, err, "cuMemAlloc", c->mem_alloc(&p->device, p->elements * p->element));
}

// scratch is the memory between layers: one block for all contexts, because only one
// of them runs at a time.
static int scratch(fl_engine *e, fl_error *err) {
	fl_lib *l = e->lib;
	int64_t n = fl_has(l, FL_CudaEngine_getDeviceMemorySizeV2) ? METHOD(l, int64_t, e->engine, CudaEngine_getDeviceMemorySizeV2)(fl_impl(e->engine))
	                                                           : (int64_t)METHOD(l, size_t, e->engine, CudaEngine_getDeviceMemorySize)(fl_impl(e->engine));
	if (n < 0) return fl_fail(err, FL_PLAN, "ICudaEngine::getDeviceMemorySize", "the library says %lld bytes", (long long)n);
	e->scratch_size = n;
	if (n == 0) return FL_OK;
	return fl_cuda(l, err, "cuMemAlloc", l->cu.mem_alloc(&e->scratch, (size_t)n));
}

// context makes one for batches of n with all addresses set. A graph is bound to its
// context's state, so each size has one of its own.
static int context(fl_engine *e, int32_t n, void **out, fl_error *err) {
	fl_lib *l = e->lib;
	void *self = fl_impl(e->engine), *x;
	uint64_t before = fl_errors(l);
	if (l->info.major == 8) x = METHOD(l, void *, e->engine, CudaEngine_createExecutionContextWithoutDeviceMemory)(self);
	else x = METHOD(l, void *, e->engine, CudaEngine_createExecutionContext, int32_t)(self, fl_v(l, FL_ExecutionContextAllocationStrategy_kUSER_MANAGED));
	char buf[LOG_BYTES];
	if (!x) {
		fl_last_error(l, before, buf, sizeof buf);
		return fl_fail(err, FL_MEMORY, "ICudaEngine::createExecutionContext", "%s", *buf ? buf : "the library gave no context; is there memory left on the device?");
	}
	*out = x;
	if (e->scratch) {
		if (fl_has(l, FL_ExecutionContext_setDeviceMemoryV2))
			METHOD(l, void, x, ExecutionContext_setDeviceMemoryV2, void *, int64_t)(fl_impl(x), (void *)(uintptr_t)e->scratch, e->scratch_size);
		else METHOD(l, void, x, ExecutionContext_setDeviceMemory, void *)(fl_impl(x), (void *)(uintptr_t)e->scratch);
	}
	for (int32_t i = 0; i < e->count; i++) {
		port *p = &e->ports[i];
		if (p->t.input && p->open) {
			dims_any any;
			dims64 d = {.n = p->t.dims};
			memcpy(d.d, p->t.shape, sizeof d.d);
			d.d[0] = n;
			fl_dims_put(l, &any, &d);
			if (!METHOD(l, bool, x, ExecutionContext_setInputShape, const char *, const void *)(fl_impl(x), p->t.name, &any))
				return fl_fail(err, FL_PLAN, "IExecutionContext::setInputShape", "input %s refuses a batch of %d", p->t.name, n);
		}
		if (p->device && !METHOD(l, bool, x, ExecutionContext_setTensorAddress, const char *, void *)(fl_impl(x), p->t.name, (void *)(uintptr_t)p->device))
			return fl_fail(err, FL_CALL, "IExecutionContext::setTensorAddress", "tensor %s refuses its memory", p->t.name);
	}
	return FL_OK;
}

static int prepare(fl_engine *e, fl_error *err) {
	fl_lib *l = e->lib;
	int rc;
	void *probe = NULL; // learns the outputs' shapes; addresses are not there yet
	if ((rc = describe(e, err))) return rc;
	if ((rc = scratch(e, err))) return rc;
	rc = context(e, e->max_batch, &probe, err);
	if (rc == FL_OK) rc = sizes(e, probe, err);
	fl_delete(probe);
	if (rc) return rc;
	for (int32_t i = 0; i < e->count; i++)
		if ((rc = memory(e, &e->ports[i], err))) return rc;
	for (int32_t k = 0; k < STEPS && (k == 0 || 1 << (k - 1) < e->max_batch); k++)
		e->steps[k].n = 1 << k < e->max_batch ? 1 << k : e->max_batch;
	return fl_cuda(l, err, "cuStreamCreate", l->cu.stream_create(&e->stream, 1)); // CU_STREAM_NON_BLOCKING
}

int fl_engine_load(fl_lib *l, const void *plan, size_t size, const fl_engine_options *o, fl_engine **out, fl_error *err) {
	int rc;
	if (!l->cu.dl) return fl_fail(err, FL_DRIVER, "cuInit", "there is no CUDA driver, so no plan can run");
	if ((rc = fl_enter(l, err)) || (rc = fl_runtime(l, err))) return rc;
	fl_engine *e = calloc(1, sizeof *e);
	if (!e) return fl_fail(err, FL_MEMORY, "calloc", "no memory for the engine's record");
	e->lib = l;
	e->graphs = o->graphs;
	uint64_t before = fl_errors(l);
	pthread_mutex_lock(&l->mu); // setDLACore and deserialize belong together
	if (o->dla_core >= 0) METHOD(l, void, l->runtime, Runtime_setDLACore, int32_t)(fl_impl(l->runtime), o->dla_core);
	if (l->info.major == 8)
		e->engine = METHOD(l, void *, l->runtime, Runtime_deserializeCudaEngine, const void *, size_t, void *)(fl_impl(l->runtime), plan, size, NULL);
	else e->engine = METHOD(l, void *, l->runtime, Runtime_deserializeCudaEngine, const void *, size_t)(fl_impl(l->runtime), plan, size);
	pthread_mutex_unlock(&l->mu);
	if (!e->engine) {
		char buf[LOG_BYTES];
		fl_last_error(l, before, buf, sizeof buf);
		rc = fl_fail(err, fl_about_memory(buf) ? FL_MEMORY : FL_PLAN, "IRuntime::deserializeCudaEngine", "%s", *buf ? buf : "the library refuses the plan and gives no reason");
	} else {
		rc = prepare(e, err);
	}
	if (rc) {
		fl_engine_close(e);
		return rc;
	}
	*out = e;
	return FL_OK;
}

// record puts a whole run of a step into the stream.
static int record(fl_engine *e, step *s, fl_error *err) {
	fl_lib *l = e->lib;
	cuda *c = &l->cu;
	int rc;
	for (int32_t i = 0; i < e->count; i++) {
		port *p = &e->ports[i];
		if (!p->t.input || p->mapped || p->filled) continue;
		if ((rc = fl_cuda(l, err, "cuMemcpyHtoDAsync", c->copy_in(p->device, p->pinned, share(e, p, s->n), e->stream)))) return rc;
	}
	uint64_t before = fl_errors(l);
	if (!METHOD(l, bool, s->context, ExecutionContext_enqueueV3, cu_stream)(fl_impl(s->context), e->stream)) {
		char buf[LOG_BYTES];
		fl_last_error(l, before, buf, sizeof buf);
		// It may have failed because the device is lost; only a call of the driver tells.
		// None is allowed while capturing, which is undone first.
		if (e->capturing) return fl_fail(err, FL_CALL, "IExecutionContext::enqueueV3", "%s", buf);
		rc = fl_cuda(l, err, "IExecutionContext::enqueueV3", c->stream_sync(e->stream));
		return rc ? rc : fl_fail(err, FL_CALL, "IExecutionContext::enqueueV3", "%s", *buf ? buf : "the library refuses the run and gives no reason");
	}
	for (int32_t i = 0; i < e->count; i++) {
		port *p = &e->ports[i];
		if (p->t.input || p->mapped) continue;
		if ((rc = fl_cuda(l, err, "cuMemcpyDtoHAsync", c->copy_out(p->pinned, p->device, share(e, p, s->n), e->stream)))) return rc;
	}
	return FL_OK;
}

// capture makes a graph of a step. A network whose run cannot be captured is none to
// complain about: it runs without.
static int capture(fl_engine *e, step *s, fl_error *err) {
	fl_lib *l = e->lib;
	cuda *c = &l->cu;
	enum { THREAD_LOCAL = 1 }; // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: others may work meanwhile
	int rc;
	s->tried = true;
	if ((rc = fl_cuda(l, err, "cuStreamBeginCapture", c->capture_begin(e->stream, THREAD_LOCAL)))) return rc;
	e->capturing = true;
	rc = record(e, s, err);
	e->capturing = false;
	cu_graph graph = NULL;
	cu_result ended = c->capture_end(e->stream, &graph);
	if (rc == FL_OK) rc = fl_cuda(l, err, "cuStreamEndCapture", ended);
	if (rc == FL_OK) {
		rc = fl_cuda(l, err, "cuGraphInstantiate", fl_instantiate(c, &s->graph, graph));
	}
	if (graph) c->graph_destroy(graph);
	if (rc && rc != FL_DEVICE) {
		char line[LOG_BYTES];
		snprintf(line, sizeof line, "fulmar: no CUDA graph for a batch of %d, it runs without: %s: %s", s->n, err->call, err->text);
		s->graph = NULL;
		fl_mail_put(l, fl_values[FL_M11][FL_Severity_kWARNING], line);
		return FL_OK;
	}
	return rc;
}

static step *step_for(fl_engine *e, int32_t n) {
	int k = 0;
	while (e->steps[k].n < n) k++;
	return &e->steps[k];
}

static int start(fl_engine *e, int32_t n, step **out, fl_error *err) {
	int rc;
	if (n < 1 || n > e->max_batch) return fl_fail(err, FL_CALL, "run", "a batch of %d, this engine takes 1 to %d", n, e->max_batch);
	if ((rc = fl_enter(e->lib, err))) return rc;
	step *s = *out = step_for(e, n);
	if (s->context) return FL_OK;
	rc = context(e, s->n, &s->context, err);
	if (rc) {
		fl_delete(s->context);
		s->context = NULL;
	}
	return rc;
}

int fl_engine_run(fl_engine *e, int32_t n, fl_error *err) {
	fl_lib *l = e->lib;
	step *s;
	int rc;
	if ((rc = start(e, n, &s, err))) return rc;
	for (int32_t i = 0; i < e->count; i++) {
		port *p = &e->ports[i];
		if (p->wide && p->t.input)
			for (size_t k = 0; k < p->elements; k++) ((int32_t *)p->pinned)[k] = (int32_t)p->wide[k];
	}
	// The first run of a context does what a capture does not allow (loading kernels,
	// taking memory), so the second one is captured.
	if (e->graphs && s->runs == 1 && !s->tried && (rc = capture(e, s, err))) return rc;
	if (s->graph) rc = fl_cuda(l, err, "cuGraphLaunch", l->cu.graph_launch(s->graph, e->stream));
	else rc = record(e, s, err);
	if (rc) return rc;
	if ((rc = fl_cuda(l, err, "cuStreamSynchronize", l->cu.stream_sync(e->stream)))) return rc;
	if (s->runs == 0) s->runs = 1;
	for (int32_t i = 0; i < e->count; i++) {
		port *p = &e->ports[i];
		if (p->wide && !p->t.input)
			for (size_t k = 0; k < p->elements; k++) p->wide[k] = ((int32_t *)p->pinned)[k];
	}
	return FL_OK;
}

int fl_engine_raw(fl_engine *e, int32_t n, int32_t times, int32_t copies, int64_t *ns, fl_error *err) {
	fl_lib *l = e->lib;
	step *s;
	int rc;
	struct timespec a, b;
	if ((rc = start(e, n, &s, err))) return rc;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int32_t i = 0; i < times; i++) {
		if (copies) rc = record(e, s, err);
		else if (!METHOD(l, bool, s->context, ExecutionContext_enqueueV3, cu_stream)(fl_impl(s->context), e->stream))
			rc = fl_fail(err, FL_CALL, "IExecutionContext::enqueueV3", "run %d of %d", i, times);
		if (rc || (rc = fl_cuda(l, err, "cuStreamSynchronize", l->cu.stream_sync(e->stream)))) return rc;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	*ns = (b.tv_sec - a.tv_sec) * 1000000000LL + (b.tv_nsec - a.tv_nsec);
	return FL_OK;
}

int32_t fl_engine_tensors(fl_engine *e) { return e->count; }
int32_t fl_engine_max_batch(fl_engine *e) { return e->max_batch; }
int64_t fl_engine_scratch(fl_engine *e) { return e->scratch_size; }
const fl_tensor *fl_engine_tensor(fl_engine *e, int32_t i) { return i >= 0 && i < e->count ? &e->ports[i].t : NULL; }
int32_t fl_engine_graphs(fl_engine *e) {
	int32_t n = 0;
	for (int k = 0; k < STEPS; k++) n += e->steps[k].graph != NULL;
	return n;
}

char *fl_engine_inspect(fl_engine *e) {
	fl_lib *l = e->lib;
	void *i = METHOD(l, void *, e->engine, CudaEngine_createEngineInspector)(fl_impl(e->engine));
	if (!i) return NULL;
	const char *text = METHOD(l, const char *, i, EngineInspector_getEngineInformation, int32_t)(fl_impl(i), fl_v(l, FL_LayerInformationFormat_kJSON));
	char *out = text ? strdup(text) : NULL;
	fl_delete(i);
	return out;
}

void fl_engine_close(fl_engine *e) {
	fl_lib *l = e->lib;
	cuda *c = &l->cu;
	if (atomic_load(&l->sticky)) return; // see fl_close
	c->set_current(l->cu.context);
	if (e->stream) c->stream_sync(e->stream);
	for (int k = 0; k < STEPS; k++) {
		if (e->steps[k].graph) c->exec_destroy(e->steps[k].graph);
		fl_delete(e->steps[k].context);
	}
	fl_delete(e->engine);
	for (int32_t i = 0; i < FL_MAX_TENSORS; i++) {
		port *p = &e->ports[i];
		if (p->device && !p->mapped) c->mem_free(p->device);
		if (p->pinned) c->host_free(p->pinned);
		free(p->wide);
	}
	fl_pictures_free(e);
	if (e->scratch) c->mem_free(e->scratch);
	if (e->stream) c->stream_destroy(e->stream);
	free(e);
}
