// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Pictures that the device turns into the network's input.
#include <string.h>
#include <time.h>

#include "engine.h"

static port *first_input(fl_engine *e) {
	for (int32_t i = 0; i < e->count; i++)
		if (e->ports[i].t.input && e->ports[i].t.type == FL_FLOAT32) return &e->ports[i];
	return NULL;
}

static void release(fl_engine *e, picture *p) {
	cuda *c = &e->lib->cu;
	if (p->device && !p->mapped) c->mem_free(p->device);
	if (p->host) c->host_free(p->host);
	memset(p, 0, sizeof *p);
}

int fl_picture_room(fl_engine *e, int32_t index, size_t size, void **host, fl_error *err) {
	fl_lib *l = e->lib;
	cuda *c = &l->cu;
	int rc;
	if (index < 0 || index >= e->max_batch) return fl_fail(err, FL_CALL, "picture", "place %d of a batch of %d", index, e->max_batch);
	if ((rc = fl_enter(l, err))) return rc;
	port *in = first_input(e);
	if (!in) return fl_fail(err, FL_CALL, "picture", "the network has no float32 input");
	for (int k = 0; k < STEPS && !in->filled; k++)
		if (e->steps[k].runs) return fl_fail(err, FL_CALL, "picture", "the engine has run with inputs from the host; its graphs copy them");
	in->filled = true;
	picture *p = &e->pictures[index];
	if (p->size < size) {
		release(e, p);
		enum { DEVICEMAP = 2, WRITECOMBINED = 4 };
		// Written once by the CPU and never read by it. Boards share the memory and gain
		// nothing from write-combining.
		p->mapped = l->info.integrated;
		rc = fl_cuda(l, err, "cuMemHostAlloc", c->host_alloc(&p->host, size, p->mapped ? DEVICEMAP : WRITECOMBINED));
		if (rc == FL_OK && p->mapped) rc = fl_cuda(l, err, "cuMemHostGetDevicePointer", c->host_device_pointer(&p->device, p->host, 0));
		else if (rc == FL_OK) rc = fl_cuda(l, err, "cuMemAlloc", c->mem_alloc(&p->device, size));
		if (rc) {
			release(e, p);
			return rc;
		}
		p->size = size;
	}
	*host = p->host;
	return FL_OK;
}

// launch runs a kernel on a stream, its two addresses put before the other parameters.
static int launch(fl_lib *l, const char *kernel, cu_ptr from, cu_ptr to, const void *params, size_t params_size, const uint32_t grid[3],
	const uint32_t block[3], cu_stream stream, fl_error *err) {
	cuda *c = &l->cu;
	cu_function f;
	int rc;
	_Alignas(8) char room[256];
	if (params_size < 16 || params_size > sizeof room) return fl_fail(err, FL_CALL, "cuLaunchKernel", "%zu bytes of parameters", params_size);
	if (!l->kernels) return fl_fail(err, FL_CALL, "cuLaunchKernel", "the kernels are not loaded");
	memcpy(room, params, params_size);
	uint64_t address[2] = {from, to};
	memcpy(room, address, sizeof address);
	if ((rc = fl_cuda(l, err, "cuModuleGetFunction", c->module_function(&f, l->kernels, kernel)))) return rc;
	void *args[] = {room};
	return fl_cuda(l, err, "cuLaunchKernel", c->launch(f, grid[0], grid[1], grid[2], block[0], block[1], block[2], 0, stream, args, NULL));
}

int fl_picture_fill(fl_engine *e, int32_t index, size_t bytes, const char *kernel, const void *params, size_t params_size,
	const uint32_t grid[3], const uint32_t block[3], fl_error *err) {
	fl_lib *l = e->lib;
	cuda *c = &l->cu;
	port *in = first_input(e);
	int rc;
	if (!in || index < 0 || index >= e->max_batch || bytes > e->pictures[index].size) return fl_fail(err, FL_CALL, "picture", "place %d has no room for %zu bytes", index, bytes);
	if ((rc = fl_enter(l, err))) return rc;
	picture *p = &e->pictures[index];
	if (!p->mapped && (rc = fl_cuda(l, err, "cuMemcpyHtoDAsync", c->copy_in(p->device, p->host, bytes, e->stream)))) return rc;
	return launch(l, kernel, p->device, in->device + share(e, in, 1) * (size_t)index, params, params_size, grid, block, e->stream, err);
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// once is what fl_kernel_once takes and has to give back.
typedef struct {
	void *host_src, *host_dst;
	cu_ptr src, dst;
	cu_stream stream;
	cu_graph graph;
	cu_exec exec;
} once;

static int once_take(fl_lib *l, once *o, const void *src, size_t src_size, size_t dst_size, fl_error *err) {
	cuda *c = &l->cu;
	int rc;
	if ((rc = fl_cuda(l, err, "cuMemHostAlloc", c->host_alloc(&o->host_src, src_size, 0)))) return rc;
	if ((rc = fl_cuda(l, err, "cuMemHostAlloc", c->host_alloc(&o->host_dst, dst_size, 0)))) return rc;
	if ((rc = fl_cuda(l, err, "cuMemAlloc", c->mem_alloc(&o->src, src_size)))) return rc;
	if ((rc = fl_cuda(l, err, "cuMemAlloc", c->mem_alloc(&o->dst, dst_size)))) return rc;
	memcpy(o->host_src, src, src_size);
	memset(o->host_dst, 0xa5, dst_size); // what the kernel leaves out shall be seen
	return fl_cuda(l, err, "cuStreamCreate", c->stream_create(&o->stream, 1));
}

int fl_kernel_once(fl_lib *l, const char *kernel, const void *params, size_t params_size, const uint32_t grid[3], const uint32_t block[3],
	const void *src, size_t src_size, void *dst, size_t dst_size, int32_t graph, int32_t times, int64_t ns[2], fl_error *err) {
	cuda *c = &l->cu;
	once o = {0};
	int rc;
	if ((rc = fl_enter(l, err))) return rc;
	if ((rc = once_take(l, &o, src, src_size, dst_size, err))) goto done;
	if (graph && (rc = fl_cuda(l, err, "cuStreamBeginCapture", c->capture_begin(o.stream, 1)))) goto done;
	if ((rc = fl_cuda(l, err, "cuMemcpyHtoDAsync", c->copy_in(o.dst, o.host_dst, dst_size, o.stream)))) goto done;
	if ((rc = fl_cuda(l, err, "cuMemcpyHtoDAsync", c->copy_in(o.src, o.host_src, src_size, o.stream)))) goto done;
	if ((rc = launch(l, kernel, o.src, o.dst, params, params_size, grid, block, o.stream, err))) goto done;
	if ((rc = fl_cuda(l, err, "cuMemcpyDtoHAsync", c->copy_out(o.host_dst, o.dst, dst_size, o.stream)))) goto done;
	if (graph) {
		if ((rc = fl_cuda(l, err, "cuStreamEndCapture", c->capture_end(o.stream, &o.graph)))) goto done;
		if ((rc = fl_cuda(l, err, "cuGraphInstantiate", fl_instantiate(c, &o.exec, o.graph)))) goto done;
		for (int i = 0; i < 2; i++) // a replay has to give the same again
			if ((rc = fl_cuda(l, err, "cuGraphLaunch", c->graph_launch(o.exec, o.stream)))) goto done;
	}
	if ((rc = fl_cuda(l, err, "cuStreamSynchronize", c->stream_sync(o.stream)))) goto done;
	memcpy(dst, o.host_dst, dst_size);
	for (int pass = 0; pass < 2 && times > 0; pass++) {
		int64_t begin = now();
		for (int32_t i = 0; i < times; i++) {
			if (pass == 0 && (rc = fl_cuda(l, err, "cuMemcpyHtoDAsync", c->copy_in(o.src, o.host_src, src_size, o.stream)))) goto done;
			if ((rc = launch(l, kernel, o.src, o.dst, params, params_size, grid, block, o.stream, err))) goto done;
			if ((rc = fl_cuda(l, err, "cuStreamSynchronize", c->stream_sync(o.stream)))) goto done;
		}
		ns[pass] = now() - begin;
	}
done:
	if (atomic_load(&l->sticky)) return rc; // see fl_close
	if (o.exec) c->exec_destroy(o.exec);
	if (o.graph) c->graph_destroy(o.graph);
	if (o.src) c->mem_free(o.src);
	if (o.dst) c->mem_free(o.dst);
	if (o.host_src) c->host_free(o.host_src);
	if (o.host_dst) c->host_free(o.host_dst);
	if (o.stream) c->stream_destroy(o.stream);
	return rc;
}

void fl_pictures_free(fl_engine *e) {
	for (int32_t i = 0; i < MAX_BATCH; i++) release(e, &e->pictures[i]);
}
