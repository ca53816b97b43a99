// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What a program may do wrong, each by its name, and the driver calls that are refused.
#include "driver.h"

typedef unsigned long long address;

static address block(size_t n) {
	address a = 0;
	CU(cuMemAlloc_v2, (address *, size_t), &a, n);
	return a;
}

static void *stream_of(unsigned flags) {
	void *s = NULL;
	CU(cuStreamCreate, (void **, unsigned), &s, flags);
	return s;
}

typedef struct {
	void *runtime, *engine, *builder, *network, *config;
	goods g;
} bench;

static bool laid(bench *b, const void *onnx, size_t n) {
	int raw = ((int (*)(void))dlsym(infer, "getInferLibVersion"))();
	b->runtime = start();
	if (!b->runtime || !build(&(order){.onnx = onnx, .onnx_size = n, .batch = 4}, &b->g)) return false;
	b->engine = load(b->runtime, b->g.plan, b->g.plan_size);
	b->builder = ((void *(*)(void *, int32_t))dlsym(infer, "createInferBuilder_INTERNAL"))(logger, raw);
	b->network = CALL(void *, b->builder, Builder_createNetworkV2, uint32_t)(impl(b->builder), T == FL_M8);
	b->config = CALL(void *, b->builder, Builder_createBuilderConfig)(impl(b->builder));
	return b->engine && b->builder;
}

static void *bound(bench *b, address in, address out) {
	void *x = context(b->engine, false);
	dims d = pack(4, (int64_t[]){1, 3, 4, 5});
	CALL(bool, x, ExecutionContext_setInputShape, const char *, const void *)(impl(x), "x", &d);
	CALL(bool, x, ExecutionContext_setTensorAddress, const char *, void *)(impl(x), "x", (void *)in);
	CALL(bool, x, ExecutionContext_setTensorAddress, const char *, void *)(impl(x), "y", (void *)out);
	return x;
}

static void *capture(void *x, void *stream) {
	void *g, *e;
	CU(cuStreamBeginCapture_v2, (void *, int), stream, 1);
	CALL(bool, x, ExecutionContext_enqueueV3, void *)(impl(x), stream);
	CU(cuStreamEndCapture, (void *, void **), stream, &g);
	CU(cuGraphInstantiateWithFlags, (void **, void *, unsigned long long), &e, g, 0);
	return e;
}

// objects are mistakes with TensorRT's objects; false: no such name.
static bool objects(const char *name, bench *b, const void *onnx, size_t n) {
	void *p, *x;
	if (!strcmp(name, "null this")) CALL(int32_t, b->builder, Builder_getNbDLACores)(NULL);
	else if (!strcmp(name, "public this")) CALL(int32_t, b->builder, Builder_getNbDLACores)(b->builder);
	else if (!strcmp(name, "other this")) CALL(int32_t, b->builder, Builder_getNbDLACores)(impl(b->config));
	else if (!strcmp(name, "other argument")) CALL(void *, b->builder, Builder_buildSerializedNetwork, void *, void *)(impl(b->builder), b->config, b->network);
	else if (!strcmp(name, "twice")) del(b->config), del(b->config);
	else if (!strcmp(name, "after delete")) p = impl(b->config), del(b->config), ((void (*)(void *, int32_t))slot(p, FL_BuilderConfig_setFlag))(p, 3);
	else if (!strcmp(name, "order")) context(b->engine, false), del(b->engine);
	else if (!strcmp(name, "owned")) del(CALL(void *, b->builder, Builder_createOptimizationProfile)(impl(b->builder)));
	else if (!strcmp(name, "flag")) CALL(void, b->config, BuilderConfig_setFlag, int32_t)(impl(b->config), T == FL_M11 ? 1 : 31);
	else if (!strcmp(name, "slot")) ((void (*)(void *))(*(void ***)impl(b->builder))[fl_vtable_sizes[T][FL_C_Builder] - 1])(impl(b->builder));
	else if (!strcmp(name, "early parser")) {
		p = ((void *(*)(void *, void *, int))dlsym(parser, "createNvOnnxParser_INTERNAL"))(b->network, logger, ((int (*)(void))dlsym(parser, "getNvOnnxParserVersion"))());
		PLAIN(bool, p, Parser_parse, const void *, size_t, const char *)(p, onnx, n, NULL);
		PLAIN(void, p, Parser_delete)(p);
		CALL(void *, b->builder, Builder_buildSerializedNetwork, void *, void *)(impl(b->builder), b->network, b->config);
	} else if (!strcmp(name, "graph of a deleted context")) {
		void *s = stream_of(1), *e;
		x = bound(b, block(240), block(240));
		e = capture(x, s);
		del(x);
		CU(cuGraphLaunch, (void *, void *), e, s);
	} else if (!strcmp(name, "graph of other shapes")) {
		void *s = stream_of(1), *e;
		dims d = pack(4, (int64_t[]){2, 3, 4, 5});
		x = bound(b, block(480), block(480));
		e = capture(x, s);
		CALL(bool, x, ExecutionContext_setInputShape, const char *, const void *)(impl(x), "x", &d);
		CU(cuGraphLaunch, (void *, void *), e, s);
	} else return false;
	return true;
}

// plans are refused with a line in the log.
static bool plans(const char *name, bench *b) {
	char *p = malloc(b->g.plan_size);
	size_t n = b->g.plan_size;
	memcpy(p, b->g.plan, n);
	if (!strcmp(name, "cut plan")) n -= 5;
	else if (!strcmp(name, "damaged plan")) p[n / 2] ^= 1;
	else if (!strcmp(name, "another GPU")) setenv("FULMAR_DOUBLE_CC", "72", 1);
	else if (!strcmp(name, "plan of another version")) p[8]++;
	else if (!strcmp(name, "no plan")) memset(p, 'x', n);
	else return free(p), false;
	printf("engine %d\n", load(b->runtime, p, n) != NULL);
	free(p);
	return true;
}

static bool memory(const char *name, bench *b) {
	address a = block(100);
	void *s = stream_of(1);
	if (!strcmp(name, "freed twice")) CU(cuMemFree_v2, (address), a), CU(cuMemFree_v2, (address), a);
	else if (!strcmp(name, "freed elsewhere")) CU(cuMemFree_v2, (address), a + 1);
	else if (!strcmp(name, "freed as page-locked")) CU(cuMemFreeHost, (void *), (void *)a);
	else if (!strcmp(name, "written past its end")) ((char *)a)[101] = 1, CU(cuMemFree_v2, (address), a);
	else if (!strcmp(name, "stream twice")) CU(cuStreamDestroy_v2, (void *), s), CU(cuStreamDestroy_v2, (void *), s);
	else if (!strcmp(name, "stream for an event")) CU(cuEventRecord, (void *, void *), s, s);
	else if (!strcmp(name, "too little for a tensor")) {
		void *x = bound(b, a, a); // 100 bytes for 240
		printf("enqueue %d\n", CALL(bool, x, ExecutionContext_enqueueV3, void *)(impl(x), s));
		CU(cuStreamSynchronize, (void *), s);
		CU(cuMemFree_v2, (address), a);
	} else return false;
	return true;
}

int misuse(const char *name, const void *onnx, size_t n) {
	bench b = {0};
	goods g = {0};
	if (!strcmp(name, "no cuInit")) return ((void *(*)(void *, int32_t))dlsym(infer, "createInferRuntime_INTERNAL"))(logger, 0) == NULL;
	if (!strcmp(name, "no profile")) return build(&(order){.onnx = onnx, .onnx_size = n}, &g);
	if (!strcmp(name, "cancelled")) return cancel_at = 4, build(&(order){.onnx = onnx, .onnx_size = n, .batch = 2, .watch = true}, &g);
	if (!laid(&b, onnx, n)) return 1;
	if (!objects(name, &b, onnx, n) && !plans(name, &b) && !memory(name, &b)) return printf("nothing is called %s\n", name), 8;
	return 0;
}

static void *other_thread(void *s) {
	void *g;
	printf("another thread:\n");
	block(10);
	CU(cuCtxSetCurrent, (void *), ((void **)s)[1]);
	CU(cuStreamEndCapture, (void *, void **), ((void **)s)[0], &g);
	return NULL;
}

static void say(const char *what) { printf("%s:\n", what); }

static void captures(void *c) {
	void *s = stream_of(1), *blocking = stream_of(0), *g;
	address a = block(64);
	char host[64] = {0};
	say("capture spoiled by an allocation");
	CU(cuStreamBeginCapture_v2, (void *, int), s, 1);
	block(64);
	CU(cuMemcpyHtoDAsync_v2, (address, const void *, size_t, void *), a, host, 64, s);
	CU(cuStreamEndCapture, (void *, void **), s, &g);
	say("capture spoiled by a wait");
	CU(cuStreamBeginCapture_v2, (void *, int), s, 1);
	CU(cuStreamSynchronize, (void *), s);
	CU(cuStreamEndCapture, (void *, void **), s, &g);
	say("capture and the stream NULL");
	CU(cuStreamBeginCapture_v2, (void *, int), blocking, 1);
	CU(cuMemcpyHtoDAsync_v2, (address, const void *, size_t, void *), a, host, 64, NULL);
	CU(cuStreamEndCapture, (void *, void **), blocking, &g);
	say("capture twice, and none");
	CU(cuStreamEndCapture, (void *, void **), s, &g);
	CU(cuStreamBeginCapture_v2, (void *, int), s, 1);
	CU(cuStreamBeginCapture_v2, (void *, int), s, 1);
	pthread_t t;
	pthread_create(&t, NULL, other_thread, (void *[]){s, c});
	pthread_join(t, NULL);
	CU(cuStreamEndCapture, (void *, void **), s, &g);
	CU(cuGraphDestroy, (void *), g);
	CU(cuStreamDestroy_v2, (void *), s);
	CU(cuStreamDestroy_v2, (void *), blocking);
	CU(cuMemFree_v2, (address), a);
}

static const char ptx[] = ".version 6.3\n.target sm_70\n.visible .entry fl_add(\n\t.param .u64 fl_add_0,\n\t.param .align 4 .b8 fl_add_1[12]\n)\n{\n ret;\n}\n.visible .entry fl_fault()\n{\n}\n";

static void kernels(void *stream) {
	void *m = NULL, *f = NULL, *none;
	say("modules");
	CU(cuModuleLoadData, (void **, const void *), &m, "no PTX");
	CU(cuModuleLoadData, (void **, const void *), &m, ".version 9.9\n.target sm_70\n.entry x() {}");
	CU(cuModuleLoadData, (void **, const void *), &m, ".version 6.3\n.target sm_90\n.entry x() {}");
	if (CU(cuModuleLoadData, (void **, const void *), &m, ptx)) return;
	CU(cuModuleGetFunction, (void **, void *, const char *), &none, m, "fl_ad");
	CU(cuModuleGetFunction, (void **, void *, const char *), &f, m, "fl_add");
	typedef unsigned u;
	CU(cuLaunchKernel, (void *, u, u, u, u, u, u, u, void *, void **, void **), f, 1, 1, 1, 32, 33, 1, 0, stream, NULL, NULL);
	CU(cuModuleGetFunction, (void **, void *, const char *), &f, m, "fl_fault");
	say("a kernel that faults");
	CU(cuLaunchKernel, (void *, u, u, u, u, u, u, u, void *, void **, void **), f, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
	CU(cuStreamSynchronize, (void *), stream);
	CU(cuModuleUnload, (void *), m);
}

int driver_calls(const void *onnx, size_t n) {
	void *c, *events[2], *pinned;
	int v[3] = {0};
	float ms = -1;
	char host[100];
	(void)onnx, (void)n;
	say("before cuInit");
	block(10);
	CU(cuInit, (unsigned), 0);
	say("without a context");
	block(10);
	CU(cuDevicePrimaryCtxRetain, (void **, int), &c, 0);
	CU(cuCtxSetCurrent, (void *), c);
	for (int i = 0; i < 3; i++) CU(cuDeviceGetAttribute, (int *, int, int), &v[i], (int[]){75, 76, 18}[i], 0);
	printf("compute capability %d.%d, integrated %d\n", v[0], v[1], v[2]);
	address a = block(100), mapped = 0;
	void *s = stream_of(1);
	say("out of range");
	CU(cuMemcpyHtoDAsync_v2, (address, const void *, size_t, void *), a + 1, host, 100, s);
	CU(cuMemcpyDtoHAsync_v2, (void *, address, size_t, void *), host, a - 1, 1, s);
	CU(cuMemHostAlloc, (void **, size_t, unsigned), &pinned, 100, 0);
	CU(cuMemHostGetDevicePointer_v2, (address *, void *, unsigned), &mapped, pinned, 0);
	say("events");
	for (int i = 0; i < 2; i++) CU(cuEventCreate, (void **, unsigned), &events[i], 0);
	CU(cuEventElapsedTime, (float *, void *, void *), &ms, events[0], events[1]);
	for (int i = 0; i < 2; i++) CU(cuEventRecord, (void *, void *), events[i], s);
	memset(pinned, 'p', 100);
	CU(cuMemcpyHtoDAsync_v2, (address, const void *, size_t, void *), a, pinned, 100, s);
	printf("copied before the wait: %d\n", *(char *)a == 'p');
	CU(cuEventSynchronize, (void *), events[1]);
	CU(cuStreamSynchronize, (void *), s);
	printf("copied after it: %d\n", *(char *)a == 'p');
	CU(cuEventElapsedTime, (float *, void *, void *), &ms, events[0], events[1]);
	printf("elapsed %d\n", ms >= 0);
	for (int i = 0; i < 2; i++) CU(cuEventDestroy_v2, (void *), events[i]);
	captures(c);
	CU(cuMemFree_v2, (address), a);
	CU(cuMemFreeHost, (void *), pinned);
	printf("live %d\n", ((int (*)(void))dlsym(infer, "fl_double_live"))());
	kernels(s);
	CU(cuStreamDestroy_v2, (void *), s);
	return 0;
}
