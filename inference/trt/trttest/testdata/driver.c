// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The driver's frame: opens the double, makes the objects that the library calls, builds
// plans and runs them.
#include "driver.h"

int T, version, cancel_at = -1;
void *infer, *parser, *cuda;
static _Thread_local int steps, phases;

static void put(void *self, int32_t severity, const char *text) {
	(void)self;
	printf("log %d %s\n", severity, text);
}
static void *nothing(void *self) {
	(void)self;
	return NULL;
}
static int32_t zero(void *self) {
	(void)self;
	return 0;
}
typedef struct { const char *kind; int32_t major, minor; } info;
static info logger_info(void *self) { return (void)self, (info){"ILogger", 1, 0}; }
static info monitor_info(void *self) { return (void)self, (info){"IProgressMonitor", 1, 0}; }
static info calibrator_info(void *self) { return (void)self, (info){"IInt8EntropyCalibrator2", 1, 0}; }
static void phase_start(void *self, const char *name, const char *parent, int32_t n) {
	(void)self;
	if (phases++ < 2) printf("phase %s of %s, %d steps\n", name, parent ? parent : "none", n);
}
static bool step_complete(void *self, const char *name, int32_t n) {
	(void)self;
	if (steps++ < 3) printf("step %s %d\n", name, n);
	return steps != cancel_at;
}
static void phase_finish(void *self, const char *name) {
	(void)self;
	if (phases-- <= 1) printf("finished %s\n", name);
}
static int32_t algorithm(void *self) { return (void)self, val(FL_CalibrationAlgoType_kENTROPY_CALIBRATION_2); }
static int32_t batch_size(void *self) { return (void)self, 1; }
static bool batch(void *self, void **bindings, const char **names, int32_t n) {
	static _Thread_local int left = 2;
	(void)self, (void)bindings;
	printf("batch of %s, %d inputs\n", names[0], n);
	if (left-- > 0) return true;
	left = 2;
	return false;
}
static const void *read_none(void *self, size_t *n) { return (void)self, *n = 0, NULL; }
static const void *read_cache(void *self, size_t *n) { return (void)self, *n = 17, "TRT-test\nx: 3c01\n"; }
static void write_cache(void *self, const void *p, size_t n) {
	(void)self;
	printf("calibration written: %.*s", (int)n, (const char *)p);
}

typedef struct { void **vtable, *vt[32]; } object;
static object logger_, monitor_, calibrator_, cached_;
void *logger = &logger_, *monitor = &monitor_, *calibrator = &calibrator_, *calibrator_cached = &cached_;

static void method(object *o, enum fl_method m, void *f) {
	if (fl_slots[T][m] >= 0) o->vt[fl_slots[T][m]] = f;
}

static void objects(void) {
	object *all[] = {&logger_, &monitor_, &calibrator_, &cached_};
	for (int i = 0; i < 4; i++) {
		all[i]->vtable = all[i]->vt;
		for (int k = 0; k < 32; k++) all[i]->vt[k] = (void *)nothing;
	}
	method(&logger_, FL_Logger_getAPILanguage, (void *)zero);
	method(&logger_, FL_Logger_getInterfaceInfo, (void *)logger_info);
	method(&logger_, FL_Logger_log, (void *)put);
	method(&monitor_, FL_ProgressMonitor_getAPILanguage, (void *)zero);
	method(&monitor_, FL_ProgressMonitor_getInterfaceInfo, (void *)monitor_info);
	method(&monitor_, FL_ProgressMonitor_phaseStart, (void *)phase_start);
	method(&monitor_, FL_ProgressMonitor_stepComplete, (void *)step_complete);
	method(&monitor_, FL_ProgressMonitor_phaseFinish, (void *)phase_finish);
	for (int i = 2; i < 4; i++) {
		method(all[i], FL_Int8Calibrator_getAPILanguage, (void *)zero);
		method(all[i], FL_Int8Calibrator_getInterfaceInfo, (void *)calibrator_info);
		method(all[i], FL_Int8Calibrator_getAlgorithm, (void *)algorithm);
		method(all[i], FL_Int8Calibrator_getBatchSize, (void *)batch_size);
		method(all[i], FL_Int8Calibrator_getBatch, (void *)batch);
		method(all[i], FL_Int8Calibrator_readCalibrationCache, i == 2 ? (void *)read_none : (void *)read_cache);
		method(all[i], FL_Int8Calibrator_writeCalibrationCache, (void *)write_cache);
	}
}

int cu(const char *name, int code) {
	const char *text = NULL;
	if (code) ((int (*)(int, const char **))dlsym(cuda, "cuGetErrorName"))(code, &text);
	if (code) printf("%s: %d %s\n", name, code, text);
	return code;
}

dims pack(int n, const int64_t *d) {
	dims out = {0};
	out.narrow.n = n; // the count lies at the same place
	for (int i = 0; i < n; i++)
		if (fl_dims_bits[T] == 64) out.wide.d[i] = d[i];
		else out.narrow.d[i] = (int32_t)d[i];
	return out;
}

static dims64 widen(dims32 d) {
	dims64 out = {.n = d.n};
	for (int i = 0; i < 8; i++) out.d[i] = d.d[i];
	return out;
}

dims64 shape(void *o, enum fl_method m, const char *name) {
	void *f = slot(impl(o), m);
	if (fl_dims_bits[T] == 64) return ((dims64(*)(void *, const char *))f)(impl(o), name);
	return widen(((dims32(*)(void *, const char *))f)(impl(o), name));
}

dims64 profile_shape(void *engine, const char *name, int32_t select) {
	if (fl_dims_bits[T] == 64) return CALL(dims64, engine, CudaEngine_getProfileShape, const char *, int32_t, int32_t)(impl(engine), name, 0, select);
	return widen(CALL(dims32, engine, CudaEngine_getProfileShape, const char *, int32_t, int32_t)(impl(engine), name, 0, select));
}

void print_shape(const char *what, dims64 d) {
	printf("%s", what);
	for (int i = 0; i < d.n; i++) printf("%s%lld", i ? "x" : " ", (long long)d.d[i]);
	printf("%s\n", d.n < 0 ? " none" : "");
}

static void *file(const char *path, size_t *n) {
	FILE *f = fopen(path, "rb");
	if (!f) return perror(path), exit(9), NULL;
	fseek(f, 0, SEEK_END);
	*n = (size_t)ftell(f);
	rewind(f);
	char *p = malloc(*n + 1);
	if (fread(p, 1, *n, f) != *n) exit(9);
	fclose(f);
	return p;
}

// compute runs a network once for a batch of n and writes its first output.
static int compute(const void *onnx, size_t size, int64_t n, const char *from, const char *to) {
	goods g = {0};
	size_t in_size;
	void *in = file(from, &in_size), *r = start(), *x, *stream;
	unsigned long long a, b;
	if (!r || !build(&(order){.onnx = onnx, .onnx_size = size, .batch = n, .int8 = T != FL_M11}, &g)) return 1;
	void *e = load(r, g.plan, g.plan_size);
	if (!e || !(x = context(e, false))) return 1;
	const char *iname = CALL(const char *, e, CudaEngine_getIOTensorName, int32_t)(impl(e), 0), *oname = CALL(const char *, e, CudaEngine_getIOTensorName, int32_t)(impl(e), 1);
	dims64 s = shape(e, FL_CudaEngine_getTensorShape, iname);
	if (s.d[0] < 0) {
		s.d[0] = n;
		dims d = pack(s.n, s.d);
		if (!CALL(bool, x, ExecutionContext_setInputShape, const char *, const void *)(impl(x), iname, &d)) return 1;
	}
	s = shape(x, FL_ExecutionContext_getTensorShape, oname);
	size_t out_size = 4;
	for (int i = 0; i < s.n; i++) out_size *= (size_t)s.d[i];
	void *out = malloc(out_size);
	if (CU(cuMemAlloc_v2, (unsigned long long *, size_t), &a, in_size) || CU(cuMemAlloc_v2, (unsigned long long *, size_t), &b, out_size)) return 1;
	if (CU(cuStreamCreate, (void **, unsigned), &stream, 1) || CU(cuMemcpyHtoDAsync_v2, (unsigned long long, const void *, size_t, void *), a, in, in_size, stream)) return 1;
	bool ok = CALL(bool, x, ExecutionContext_setTensorAddress, const char *, void *)(impl(x), iname, (void *)a) &&
		CALL(bool, x, ExecutionContext_setTensorAddress, const char *, void *)(impl(x), oname, (void *)b) && CALL(bool, x, ExecutionContext_enqueueV3, void *)(impl(x), stream);
	if (!ok || CU(cuMemcpyDtoHAsync_v2, (void *, unsigned long long, size_t, void *), out, b, out_size, stream) || CU(cuStreamSynchronize, (void *), stream)) return 1;
	FILE *f = fopen(to, "wb");
	if (!f || fwrite(out, 1, out_size, f) != out_size || fclose(f)) return 9;
	return 0;
}

static void *open_one(const char *dir, const char *name, const char *other) {
	char path[1000];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!h && other) return open_one(dir, other, NULL);
	if (!h) fprintf(stderr, "%s\n", dlerror()), exit(9);
	return h;
}

// driver DIR MAJOR MODE NETWORK ...
int main(int n, char **v) {
	char name[64];
	size_t size;
	if (n < 5) return 9;
	setvbuf(stdout, NULL, _IOLBF, 0); // what was said is there also after an abort
	T = atoi(v[2]) == 8 ? FL_M8 : atoi(v[2]) == 10 ? FL_M10 : FL_M11;
	snprintf(name, sizeof name, "libnvinfer.so.%s", v[2]);
	infer = open_one(v[1], name, "libtensorrt_rtx.so.1");
	snprintf(name, sizeof name, "libnvonnxparser.so.%s", v[2]);
	parser = open_one(v[1], name, "libtensorrt_onnxparser_rtx.so.1");
	cuda = open_one(v[1], "libcuda.so.1", NULL);
	int raw = ((int (*)(void))dlsym(infer, "getInferLibVersion"))();
	version = T == FL_M8 ? raw / 1000 * 10000 + raw % 1000 / 100 * 100 + raw % 100 : raw < 20000 ? 110000 : raw;
	objects();
	void *onnx = file(v[4], &size);
	int rc = 9;
	if (strcmp(v[3], "life") == 0) rc = life(onnx, size);
	else if (strcmp(v[3], "threads") == 0) rc = lives(onnx, size);
	else if (strcmp(v[3], "cuda") == 0) rc = driver_calls(onnx, size);
	else if (strcmp(v[3], "run") == 0 && n == 8) rc = compute(onnx, size, atoi(v[5]), v[6], v[7]);
	else rc = misuse(v[3], onnx, size);
	printf("live %d %s\n", ((int (*)(void))dlsym(infer, "fl_double_live"))(), ((const char *(*)(void))dlsym(infer, "fl_double_leaks"))());
	return rc;
}
