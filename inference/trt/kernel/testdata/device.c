// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Takes the place of src/kernel.c in emulate.c where there is a device: the same records
// go through prep.ptx. Only the driver is wanted, no CUDA.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "device.h"

static void *lib;

static void *symbol(const char *name) {
	void *f = dlsym(lib, name);
	if (!f) {
		fprintf(stderr, "device: the driver has no %s\n", name);
		exit(1);
	}
	return f;
}

// CALL calls a function of the driver, whose arguments have the types that they are
// written with.
#define CALL(name, types, ...) ((int(*) types)symbol(name))(__VA_ARGS__)
#define MUST(name, types, ...)                                              \
	do {                                                                \
		int code = CALL(name, types, __VA_ARGS__);                  \
		if (code) {                                                 \
			fprintf(stderr, "device: %s gives %d\n", name, code); \
			exit(1);                                            \
		}                                                           \
	} while (0)

static void *module(void) {
	static void *m;
	if (m) return m;
	if (!(lib = dlopen("libcuda.so.1", RTLD_NOW))) {
		fprintf(stderr, "device: %s\n", dlerror());
		exit(1);
	}
	static char text[1 << 20];
	FILE *f = fopen("prep.ptx", "r");
	if (!f || fread(text, 1, sizeof text - 1, f) == 0) {
		fprintf(stderr, "device: prep.ptx cannot be read\n");
		exit(1);
	}
	fclose(f);
	void *context;
	int dev;
	MUST("cuInit", (unsigned), 0);
	MUST("cuDeviceGet", (int *, int), &dev, 0);
	MUST("cuDevicePrimaryCtxRetain", (void **, int), &context, dev);
	MUST("cuCtxSetCurrent", (void *), context);
	MUST("cuModuleLoadData", (void **, const void *), &m, text);
	return m;
}

static int launch(const char *name, unsigned *grid, unsigned *block, void **params) {
	void *f, *m = module();
	MUST("cuModuleGetFunction", (void **, void *, const char *), &f, m, name);
	MUST("cuLaunchKernel", (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
		f, grid[0], grid[1], grid[2], block[0], block[1], block[2], 0, NULL, params, NULL);
	return CALL("cuStreamSynchronize", (void *), NULL);
}

int device_run(const char *name, fl_prep_params *p, unsigned *grid, unsigned *block, char *src, size_t at, size_t size, char *dst, size_t room) {
	uint64_t in, out;
	module();
	MUST("cuMemAlloc_v2", (uint64_t *, size_t), &in, size);
	MUST("cuMemAlloc_v2", (uint64_t *, size_t), &out, room);
	MUST("cuMemcpyHtoDAsync_v2", (uint64_t, const void *, size_t, void *), in, src, size, NULL);
	MUST("cuMemcpyHtoDAsync_v2", (uint64_t, const void *, size_t, void *), out, dst, room, NULL);
	p->src = in + at, p->dst = out;
	void *params[] = {p};
	int code = launch(name, grid, block, params);
	if (code) return code;
	MUST("cuMemcpyDtoHAsync_v2", (void *, uint64_t, size_t, void *), dst, out, room, NULL);
	MUST("cuStreamSynchronize", (void *), NULL);
	MUST("cuMemFree_v2", (uint64_t), in);
	MUST("cuMemFree_v2", (uint64_t), out);
	return 0;
}

int device_fault(void) {
	unsigned one[3] = {1, 1, 1};
	return launch("fl_fault", one, one, NULL);
}
