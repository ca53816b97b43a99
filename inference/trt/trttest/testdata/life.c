// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The driver's life: every method of the tables is called, and what it gives is printed.
#include "driver.h"

static void keep(void *memory, void **to, size_t *n) {
	*n = CALL(size_t, memory, HostMemory_size)(impl(memory));
	*to = malloc(*n);
	memcpy(*to, CALL(void *, memory, HostMemory_data)(impl(memory)), *n);
	del(memory);
}

static bool profile(void *builder, void *net, void *config, int64_t batch) {
	void *p = CALL(void *, builder, Builder_createOptimizationProfile)(impl(builder)), *t = CALL(void *, net, NetworkDefinition_getInput, int32_t)(impl(net), 0);
	const char *name = CALL(const char *, t, Tensor_getName)(impl(t));
	for (int k = 0; k < 3; k++) {
		dims64 d;
		if (fl_dims_bits[T] == 64) d = CALL(dims64, t, Tensor_getDimensions)(impl(t));
		else {
			dims32 narrow = CALL(dims32, t, Tensor_getDimensions)(impl(t));
			d.n = narrow.n;
			for (int i = 0; i < 8; i++) d.d[i] = narrow.d[i];
		}
		if (k == 0) print_shape("input", d);
		if (d.d[0] >= 0) return true;
		d.d[0] = k ? batch : 1;
		dims v = pack(d.n, d.d);
		int32_t select = val(k == 0 ? FL_OptProfileSelector_kMIN : k == 1 ? FL_OptProfileSelector_kOPT : FL_OptProfileSelector_kMAX);
		// 8 takes them by value.
		bool ok = T == FL_M8 ? CALL(bool, p, OptimizationProfile_setDimensions, const char *, int32_t, dims32)(impl(p), name, select, v.narrow)
		                     : CALL(bool, p, OptimizationProfile_setDimensions, const char *, int32_t, const void *)(impl(p), name, select, &v);
		if (!ok) return printf("setDimensions refuses\n"), false;
	}
	return CALL(int32_t, config, BuilderConfig_addOptimizationProfile, const void *)(impl(config), p) == 0;
}

static void configure(const order *o, void *c, void *net) {
	if (o->int8) CALL(void, c, BuilderConfig_setFlag, int32_t)(impl(c), val(FL_BuilderFlag_kINT8));
	CALL(void, c, BuilderConfig_setMemoryPoolLimit, int32_t, size_t)(impl(c), val(FL_MemoryPoolType_kWORKSPACE), 1 << 20);
	if (has(FL_BuilderConfig_setBuilderOptimizationLevel)) CALL(void, c, BuilderConfig_setBuilderOptimizationLevel, int32_t)(impl(c), 3);
	if (has(FL_BuilderConfig_setMaxAuxStreams)) CALL(void, c, BuilderConfig_setMaxAuxStreams, int32_t)(impl(c), 0);
	CALL(void, c, BuilderConfig_setProfilingVerbosity, int32_t)(impl(c), val(FL_ProfilingVerbosity_kDETAILED));
	if (o->watch && has(FL_BuilderConfig_setProgressMonitor)) CALL(void, c, BuilderConfig_setProgressMonitor, void *)(impl(c), monitor);
	if (o->calibrator && has(FL_BuilderConfig_setInt8Calibrator)) CALL(void, c, BuilderConfig_setInt8Calibrator, void *)(impl(c), o->calibrator);
	if (!o->dla) return;
	CALL(void, c, BuilderConfig_setDefaultDeviceType, int32_t)(impl(c), val(FL_DeviceType_kDLA));
	CALL(void, c, BuilderConfig_setDLACore, int32_t)(impl(c), 1);
	CALL(void, c, BuilderConfig_setFlag, int32_t)(impl(c), val(FL_BuilderFlag_kGPU_FALLBACK));
	int32_t n = CALL(int32_t, net, NetworkDefinition_getNbLayers)(impl(net));
	for (int32_t i = 0; i < n; i++) {
		void *l = CALL(void *, net, NetworkDefinition_getLayer, int32_t)(impl(net), i);
		printf("layer %s on DLA %d\n", CALL(const char *, l, Layer_getName)(impl(l)), CALL(bool, c, BuilderConfig_canRunOnDLA, const void *)(impl(c), l));
	}
}

static void refused(void *p) {
	printf("%d errors\n", PLAIN(int, p, Parser_getNbErrors)(p));
	void *e = PLAIN(void *, p, Parser_getError, int)(p, 0);
	if (e) printf("error at node %d: %s\n", PLAIN(int, e, ParserError_node)(e), PLAIN(const char *, e, ParserError_desc)(e));
}

bool build(const order *o, goods *out) {
	int raw = ((int (*)(void))dlsym(infer, "getInferLibVersion"))();
	void *b = ((void *(*)(void *, int32_t))dlsym(infer, "createInferBuilder_INTERNAL"))(logger, raw), *t = NULL, *m = NULL;
	if (!b) return printf("no builder\n"), false;
	uint32_t flags = T == FL_M8 ? 1u << val(FL_NetworkDefinitionCreationFlag_kEXPLICIT_BATCH) : 0;
	void *net = CALL(void *, b, Builder_createNetworkV2, uint32_t)(impl(b), flags), *c = CALL(void *, b, Builder_createBuilderConfig)(impl(b));
	void *p = ((void *(*)(void *, void *, int))dlsym(parser, "createNvOnnxParser_INTERNAL"))(net, logger, ((int (*)(void))dlsym(parser, "getNvOnnxParserVersion"))());
	bool ok = CALL(bool, b, Builder_setMaxThreads, int32_t)(impl(b), 2);
	if (!PLAIN(bool, p, Parser_parse, const void *, size_t, const char *)(p, o->onnx, o->onnx_size, NULL)) refused(p), ok = false;
	else {
		void *in = CALL(void *, net, NetworkDefinition_getInput, int32_t)(impl(net), 0);
		printf("%d inputs, %d outputs, %d layers, %d DLA cores, from %s\n", CALL(int32_t, net, NetworkDefinition_getNbInputs)(impl(net)),
			CALL(int32_t, net, NetworkDefinition_getNbOutputs)(impl(net)), CALL(int32_t, net, NetworkDefinition_getNbLayers)(impl(net)), CALL(int32_t, b, Builder_getNbDLACores)(impl(b)),
			CALL(const char *, in, Tensor_getName)(impl(in)));
	}
	if (ok && o->batch) ok = profile(b, net, c, o->batch);
	if (ok) configure(o, c, net);
	if (ok && (t = CALL(void *, c, BuilderConfig_createTimingCache, const void *, size_t)(impl(c), o->cache, o->cache_size)))
		ok = CALL(bool, c, BuilderConfig_setTimingCache, const void *, bool)(impl(c), t, false);
	if (ok) m = CALL(void *, b, Builder_buildSerializedNetwork, void *, void *)(impl(b), net, c);
	if (m) keep(m, &out->plan, &out->plan_size);
	if (t) keep(CALL(void *, t, TimingCache_serialize)(impl(t)), &out->cache, &out->cache_size);
	PLAIN(void, p, Parser_delete)(p);
	del(net);
	del(t);
	del(c);
	del(b);
	return m != NULL;
}

void *start(void) {
	int device;
	void *c;
	int raw = ((int (*)(void))dlsym(infer, "getInferLibVersion"))();
	if (CU(cuInit, (unsigned), 0) || CU(cuDeviceGet, (int *, int), &device, 0) || CU(cuDevicePrimaryCtxRetain, (void **, int), &c, device)) return NULL;
	if (CU(cuCtxSetCurrent, (void *), c)) return NULL;
	void *r = ((void *(*)(void *, int32_t))dlsym(infer, "createInferRuntime_INTERNAL"))(logger, raw);
	if (!r) printf("builder %d\n", ((void *(*)(void *, int32_t))dlsym(infer, "createInferBuilder_INTERNAL"))(logger, raw) != NULL);
	if (r) printf("runtime with %d DLA cores\n", CALL(int32_t, r, Runtime_getNbDLACores)(impl(r)));
	else stop(NULL);
	return r;
}

void stop(void *r) {
	del(r);
	CU(cuDevicePrimaryCtxRelease_v2, (int), 0);
}

void *load(void *r, const void *plan, size_t n) {
	if (T == FL_M8) return CALL(void *, r, Runtime_deserializeCudaEngine, const void *, size_t, void *)(impl(r), plan, n, NULL);
	return CALL(void *, r, Runtime_deserializeCudaEngine, const void *, size_t)(impl(r), plan, n);
}

void *context(void *e, bool bare) {
	if (T != FL_M8) return CALL(void *, e, CudaEngine_createExecutionContext, int32_t)(impl(e), val(bare ? FL_ExecutionContextAllocationStrategy_kUSER_MANAGED : FL_ExecutionContextAllocationStrategy_kSTATIC));
	if (bare) return CALL(void *, e, CudaEngine_createExecutionContextWithoutDeviceMemory)(impl(e));
	return CALL(void *, e, CudaEngine_createExecutionContext)(impl(e));
}

static void describe(void *e) {
	void *s = impl(e);
	for (int32_t i = 0; i < CALL(int32_t, e, CudaEngine_getNbIOTensors)(s); i++) {
		const char *n = CALL(const char *, e, CudaEngine_getIOTensorName, int32_t)(s, i);
		printf("tensor %s type %d mode %d format %d location %d\n", n, CALL(int32_t, e, CudaEngine_getTensorDataType, const char *)(s, n),
			CALL(int32_t, e, CudaEngine_getTensorIOMode, const char *)(s, n), CALL(int32_t, e, CudaEngine_getTensorFormat, const char *)(s, n),
			CALL(int32_t, e, CudaEngine_getTensorLocation, const char *)(s, n));
		print_shape("shape", shape(e, FL_CudaEngine_getTensorShape, n));
		print_shape("most", profile_shape(e, n, val(FL_OptProfileSelector_kMAX)));
	}
	if (has(FL_CudaEngine_getDeviceMemorySize)) printf("memory %zu\n", CALL(size_t, e, CudaEngine_getDeviceMemorySize)(s));
	if (has(FL_CudaEngine_getDeviceMemorySizeV2)) printf("memory %lld\n", (long long)CALL(int64_t, e, CudaEngine_getDeviceMemorySizeV2)(s));
	void *i = CALL(void *, e, CudaEngine_createEngineInspector)(s);
	printf("%s\n", CALL(const char *, i, EngineInspector_getEngineInformation, int32_t)(impl(i), val(FL_LayerInformationFormat_kJSON)));
	del(i);
}

enum { ELEMENTS = 3 * 4 * 5 };
typedef struct {
	void *x, *stream, *graph, *exec;
	float *host;
	unsigned long long in, out, scratch;
} running;

static bool once(running *r, int batch, float first) {
	size_t n = (size_t)batch * ELEMENTS;
	for (size_t i = 0; i < n; i++) r->host[i] = first + (float)i;
	if (CU(cuMemcpyHtoDAsync_v2, (unsigned long long, const void *, size_t, void *), r->in, r->host, n * 4, r->stream)) return false;
	if (r->exec) {
		if (CU(cuGraphLaunch, (void *, void *), r->exec, r->stream)) return false;
	} else if (!CALL(bool, r->x, ExecutionContext_enqueueV3, void *)(impl(r->x), r->stream)) return printf("enqueue fails\n"), false;
	if (CU(cuMemcpyDtoHAsync_v2, (void *, unsigned long long, size_t, void *), r->host, r->out, n * 4, r->stream) || CU(cuStreamSynchronize, (void *), r->stream)) return false;
	printf("first %g last %g\n", (double)r->host[0], (double)r->host[n - 1]);
	return true;
}

static bool captured(running *r) {
	if (CU(cuStreamBeginCapture_v2, (void *, int), r->stream, 1)) return false;
	bool ok = CALL(bool, r->x, ExecutionContext_enqueueV3, void *)(impl(r->x), r->stream);
	if (CU(cuStreamEndCapture, (void *, void **), r->stream, &r->graph) || !ok) return false;
	return !CU(cuGraphInstantiateWithFlags, (void **, void *, unsigned long long), &r->exec, r->graph, 0);
}

// prepared takes memory, and sets shapes and addresses.
static bool prepared(running *r, void *e, int batch, bool bare) {
	if (CU(cuMemAlloc_v2, (unsigned long long *, size_t), &r->in, (size_t)batch * ELEMENTS * 4) || CU(cuMemAlloc_v2, (unsigned long long *, size_t), &r->out, (size_t)batch * ELEMENTS * 4)) return false;
	if (CU(cuMemHostAlloc, (void **, size_t, unsigned), (void **)&r->host, (size_t)batch * ELEMENTS * 4, 2) || CU(cuStreamCreate, (void **, unsigned), &r->stream, 1)) return false;
	if (!(r->x = context(e, bare))) return printf("no context\n"), false;
	if (bare) {
		if (CU(cuMemAlloc_v2, (unsigned long long *, size_t), &r->scratch, 1 << 16)) return false;
		CALL(void, r->x, ExecutionContext_setDeviceMemory, void *)(impl(r->x), (void *)r->scratch);
		if (has(FL_ExecutionContext_setDeviceMemoryV2)) CALL(void, r->x, ExecutionContext_setDeviceMemoryV2, void *, int64_t)(impl(r->x), (void *)r->scratch, 1 << 16);
	}
	print_shape("output before", shape(r->x, FL_ExecutionContext_getTensorShape, "y"));
	dims over = pack(4, (int64_t[]){99, 3, 4, 5}), right = pack(4, (int64_t[]){batch, 3, 4, 5});
	printf("over the profile: %d\n", CALL(bool, r->x, ExecutionContext_setInputShape, const char *, const void *)(impl(r->x), "x", &over));
	printf("no address: %d\n", CALL(bool, r->x, ExecutionContext_enqueueV3, void *)(impl(r->x), r->stream));
	printf("NULL as address: %d\n", CALL(bool, r->x, ExecutionContext_setTensorAddress, const char *, void *)(impl(r->x), "x", NULL));
	bool ok = CALL(bool, r->x, ExecutionContext_setTensorAddress, const char *, void *)(impl(r->x), "x", (void *)r->in) &&
		CALL(bool, r->x, ExecutionContext_setTensorAddress, const char *, void *)(impl(r->x), "y", (void *)r->out) &&
		CALL(bool, r->x, ExecutionContext_setInputShape, const char *, const void *)(impl(r->x), "x", &right);
	print_shape("output", shape(r->x, FL_ExecutionContext_getTensorShape, "y"));
	return ok;
}

static bool run(void *e, int batch, bool bare) {
	running r = {0};
	bool ok = prepared(&r, e, batch, bare) && once(&r, batch, 1) && captured(&r) && once(&r, batch, -7) && once(&r, batch, 100);
	if (r.exec) CU(cuGraphExecDestroy, (void *), r.exec);
	if (r.graph) CU(cuGraphDestroy, (void *), r.graph);
	del(r.x);
	if (r.host) CU(cuMemFreeHost, (void *), r.host);
	if (r.stream) CU(cuStreamDestroy_v2, (void *), r.stream);
	if (r.in) CU(cuMemFree_v2, (unsigned long long), r.in);
	if (r.out) CU(cuMemFree_v2, (unsigned long long), r.out);
	if (r.scratch) CU(cuMemFree_v2, (unsigned long long), r.scratch);
	return ok;
}

static bool lived(void *r, const void *onnx, size_t n, goods *g) {
	goods second = {0};
	order o = {.onnx = onnx, .onnx_size = n, .batch = 4, .watch = true, .int8 = T != FL_M11, .calibrator = calibrator};
	if (build(&(order){.onnx = "junk", .onnx_size = 4}, g) || !build(&o, g)) return false;
	bool dla = CALL(int32_t, r, Runtime_getNbDLACores)(impl(r)) == 2;
	order again = {.onnx = onnx, .onnx_size = n, .batch = 2, .cache = g->cache, .cache_size = g->cache_size, .dla = dla, .int8 = T != FL_M11, .calibrator = calibrator_cached};
	bool ok = build(&again, &second);
	free(second.plan);
	free(second.cache);
	if (!ok) return false;
	if (dla) CALL(void, r, Runtime_setDLACore, int32_t)(impl(r), 1);
	void *e = load(r, g->plan, g->plan_size);
	if (!e) return printf("no engine\n"), false;
	describe(e);
	ok = run(e, 1, false) && run(e, 4, true);
	del(e);
	return ok;
}

int life(const void *onnx, size_t n) {
	goods g = {0};
	void *r = start();
	if (!r) return 1;
	bool ok = lived(r, onnx, n, &g);
	free(g.plan);
	free(g.cache);
	stop(r);
	puts(ok ? "lived" : "failed");
	return !ok;
}

typedef struct {
	const void *onnx;
	size_t n;
	int failed;
} one;

static void *one_life(void *arg) {
	one *o = arg;
	for (int i = 0; i < 5 && !o->failed; i++) o->failed = life(o->onnx, o->n);
	return NULL;
}

int lives(const void *onnx, size_t n) {
	enum { THREADS = 4 };
	pthread_t t[THREADS];
	one o[THREADS];
	int failed = 0;
	for (int i = 0; i < THREADS; i++) {
		o[i] = (one){onnx, n, 0};
		pthread_create(&t[i], NULL, one_life, &o[i]);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		failed |= o[i].failed;
	}
	return failed;
}
