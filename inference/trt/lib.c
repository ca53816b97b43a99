// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Opening the libraries, and the errors of all other files.
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inner.h"

int fl_fail(fl_error *err, enum fl_kind kind, const char *call, const char *format, ...) {
	memset(err, 0, sizeof *err);
	err->kind = kind;
	snprintf(err->call, sizeof err->call, "%s", call);
	va_list args;
	va_start(args, format);
	vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	for (char *p = err->text; *p; p++)
		if (*p == '\n' || *p == '\r' || *p == '\t') *p = ' ';
	return kind;
}

static void *symbol(void *dl, const char *name, const char *path, fl_error *err) {
	void *p = dlsym(dl, name);
	if (!p) fl_fail(err, FL_LIBRARY, "dlsym", "%s has no %s: it is no TensorRT library, or one that is cut", path, name);
	return p;
}

// table_of gives the table for what the library says of itself. The calls that give
// major and minor alone came with 10; before, the version is major*1000 + minor*100
// + patch. They go first: TensorRT for RTX 1.7.1 gives 10701, which read in the old
// way is a 10.
static int table_of(fl_lib *l, const char *path, fl_error *err) {
	int32_t (*version)(void) = symbol(l->infer, "getInferLibVersion", path, err);
	if (!version) return FL_LIBRARY;
	int32_t v = version();
	int32_t (*major)(void) = dlsym(l->infer, "getInferLibMajorVersion");
	int32_t (*minor)(void) = dlsym(l->infer, "getInferLibMinorVersion");
	int32_t (*patch)(void) = dlsym(l->infer, "getInferLibPatchVersion");
	int32_t a = v / 1000, b = v / 100 % 10, c = v % 100;
	if (v >= 100000) a = v / 10000, b = v / 100 % 100;
	if (major && minor && patch) a = major(), b = minor(), c = patch();
	l->info.version = v;
	l->version = a * 10000 + b * 100 + c;
	switch (a) {
	case 1: // TensorRT for RTX, whose interface is that of 11
		l->info.rtx = 1;
		l->major = FL_M11;
		l->version = 110000;
		break;
	case 8: l->major = FL_M8; break;
	case 10: l->major = FL_M10; break;
	case 11: l->major = FL_M11; break;
	default:
		return fl_fail(err, FL_LIBRARY, "getInferLibVersion", "%s is TensorRT %d.%d.%d: this program knows 8.5 and later 8.x, 10.x and 11.x; "
			"update fulmar, or the models run on ONNX Runtime", path, a, b, c);
	}
	if (l->major == FL_M8 && l->version < 80500)
		return fl_fail(err, FL_LIBRARY, "getInferLibVersion", "%s is TensorRT %d.%d.%d, too old: 8.5 (JetPack 5.1) is the oldest that works", path, a, b, c);
	l->info.major = l->major == FL_M8 ? 8 : l->major == FL_M10 ? 10 : 11;
	return FL_OK;
}

static int open_infer(fl_lib *l, const char *path, fl_error *err) {
	int rc;
	l->infer = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!l->infer) return fl_fail(err, FL_LIBRARY, "dlopen", "%s", dlerror());
	if ((rc = table_of(l, path, err))) return rc;
	l->make_runtime = symbol(l->infer, "createInferRuntime_INTERNAL", path, err);
	if (!l->make_runtime) return FL_LIBRARY;
	l->make_builder = dlsym(l->infer, "createInferBuilder_INTERNAL"); // the lean runtime has none
	fl_logger_init(l);
	return FL_OK;
}

static int open_parser(fl_lib *l, const char *path, fl_error *err) {
	l->parser = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!l->parser) return fl_fail(err, FL_LIBRARY, "dlopen", "%s", dlerror());
	l->make_parser = symbol(l->parser, "createNvOnnxParser_INTERNAL", path, err);
	int (*version)(void) = symbol(l->parser, "getNvOnnxParserVersion", path, err);
	if (!l->make_parser || !version) return FL_LIBRARY;
	l->info.parser_version = version();
	return FL_OK;
}

int fl_open(const char *infer, const char *parser, const char *cuda, fl_lib **out, fl_error *err) {
	fl_lib *l = calloc(1, sizeof *l);
	if (!l) return fl_fail(err, FL_MEMORY, "calloc", "no memory for the library's record");
	pthread_mutex_init(&l->mu, NULL);
	pthread_mutex_init(&l->mail.mu, NULL);
	atomic_store(&l->mail.level, fl_values[FL_M11][FL_Severity_kINFO]);
	l->info.dla_cores = -1;
	int rc = FL_OK;
	if (infer && (rc = open_infer(l, infer, err))) goto failed;
	if (parser && (rc = open_parser(l, parser, err))) goto failed;
	if (cuda && (rc = fl_cuda_open(l, cuda, err))) goto failed;
	*out = l;
	return FL_OK;
failed:
	fl_close(l);
	return rc;
}

void fl_get_info(fl_lib *l, fl_info *out) { *out = l->info; }

// fl_runtime makes the runtime when it is first needed. Without a driver a real
// library's createInferRuntime gives a pointer that is none, so that is asked first.
int fl_runtime(fl_lib *l, fl_error *err) {
	int rc = FL_OK;
	pthread_mutex_lock(&l->mu);
	if (l->runtime) goto out;
	if (!l->infer) {
		rc = fl_fail(err, FL_LIBRARY, "createInferRuntime", "only the driver was opened");
		goto out;
	}
	if (!l->cu.dl) {
		rc = fl_fail(err, FL_DRIVER, "createInferRuntime", "there is no CUDA driver (libcuda.so.1), so nothing can run; install it, or the models run on ONNX Runtime");
		goto out;
	}
	uint64_t before = fl_errors(l);
	l->runtime = l->make_runtime(&l->logger, l->info.version);
	if (!l->runtime) {
		char why[LOG_BYTES];
		fl_last_error(l, before, why, sizeof why);
		rc = fl_fail(err, FL_DRIVER, "createInferRuntime", "%.400s; the driver is for CUDA %d.%d: if this TensorRT wants a newer one, update the driver (on a Jetson: JetPack)",
			*why ? why : "the library gave no runtime and no reason", l->info.driver / 1000, l->info.driver / 10 % 100);
		goto out;
	}
	l->info.dla_cores = METHOD(l, int32_t, l->runtime, Runtime_getNbDLACores)(fl_impl(l->runtime));
out:
	pthread_mutex_unlock(&l->mu);
	return rc;
}

int fl_start(fl_lib *l, fl_error *err) {
	int rc = fl_enter(l, err);
	return rc || !l->infer ? rc : fl_runtime(l, err);
}

void fl_close(fl_lib *l) {
	if (!l) return;
	// After the context is lost each call into the libraries may hang or crash: the
	// process is to end, and that frees everything.
	if (!atomic_load(&l->sticky)) {
		if (l->runtime) fl_delete(l->runtime);
		fl_cuda_close(l);
		// The libraries stay mapped: they have threads and exit handlers of their own.
		for (uint32_t i = 0; i < LOG_LINES; i++) free(l->mail.line[i]);
		pthread_mutex_destroy(&l->mail.mu);
		pthread_mutex_destroy(&l->mu);
		free(l);
	}
}

void fl_delete(void *obj) {
	if (obj) ((void (*)(void *))(*(void ***)obj)[1])(obj);
}

void fl_parser_delete(const fl_lib *l, void *parser) {
	if (parser) PLAIN(l, void, parser, Parser_delete)(parser);
}

void fl_dims_put(const fl_lib *l, dims_any *to, const dims64 *from) {
	if (fl_dims_bits[l->major] == 64) {
		to->d64 = *from;
		return;
	}
	to->d32.n = from->n;
	for (int i = 0; i < FL_MAX_DIMS; i++) to->d32.d[i] = (int32_t)from->d[i];
}

dims64 fl_dims_get(const fl_lib *l, void *obj, enum fl_method m, const char *name) {
	void *self = fl_impl(obj);
	void *f = fl_slot_of(l, self, m);
	dims64 wide;
	if (fl_dims_bits[l->major] == 64) {
		wide = name ? ((dims64(*)(void *, const char *))f)(self, name) : ((dims64(*)(void *))f)(self);
	} else {
		dims32 narrow = name ? ((dims32(*)(void *, const char *))f)(self, name) : ((dims32(*)(void *))f)(self);
		wide.n = narrow.n;
		for (int i = 0; i < FL_MAX_DIMS; i++) wide.d[i] = narrow.d[i];
	}
	if (wide.n < 0 || wide.n > FL_MAX_DIMS) wide.n = -1; // no such tensor
	return wide;
}

int32_t fl_sticky(fl_lib *l) { return atomic_load(&l->sticky); }
