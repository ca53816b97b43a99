// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for modules and kernels of libcuda. The text of PTX is looked at for its
// version, its target, the names of its kernels and the sizes of their parameters; what
// a kernel computes comes from a C version of it, if one is linked in.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

// fl_double_kernel runs a kernel by its name and gives 0, or -1 for a name that it does
// not know. With params NULL it only says which of the two.
__attribute__((weak)) int fl_double_kernel(const char *name, void **params, unsigned grid[3], unsigned block[3]);

enum { PARAMS = 32, PARAM_BYTES = 1024 };

typedef struct function function;
typedef struct {
	db_thing thing;
	char *text;
	function *functions;
} module;

struct function {
	char name[96];
	module *of;
	int params;
	size_t size[PARAMS];
	function *next;
};

typedef struct {
	const function *f;
	unsigned grid[3], block[3];
	void *params[PARAMS];
	uint64_t bytes[PARAM_BYTES / 8];
} launch;

API int cuModuleLoadData(void **out, const void *image) {
	db_reread();
	int r = db_enter();
	if (r || (r = db_unsafe())) return r;
	if (!out || !image) return CU_INVALID_VALUE;
	const char *text = image, *v = strstr(text, ".version"), *t = strstr(text, ".target sm_");
	int major = 0, minor = 0, target = 0;
	if (!v || sscanf(v, ".version %d.%d", &major, &minor) != 2) return CU_INVALID_IMAGE;
	if (!t || sscanf(t, ".target sm_%d", &target) != 1 || !strstr(text, ".entry")) return CU_INVALID_PTX;
	// CUDA 11 knows PTX up to 7.8, 12 up to 8.8, 13 up to 9.x; within them it is minor for
	// minor, near enough.
	int cuda = db_driver() / 1000, least = db_driver() % 1000 / 10;
	if (major > cuda - 4 || (major == cuda - 4 && minor > least)) return CU_PTX_VERSION;
	if (target > db_cc()) return CU_NO_BINARY;
	module *m = db_alloc(sizeof *m);
	m->text = db_strdup(text);
	db_born(&m->thing, "module", "PTX %d.%d for sm_%d", major, minor, target);
	*out = m;
	return CU_OK;
}

API int cuModuleUnload(void *from) {
	int r = db_enter();
	if (r || (r = db_unsafe())) return r;
	module *m = from;
	db_dead(&m->thing, "module", "cuModuleUnload");
	free(m->text);
	m->text = NULL;
	return CU_OK;
}

static const char *entry(const char *text, const char *name) {
	size_t n = strlen(name);
	for (const char *p = strstr(text, ".entry"); p; p = strstr(p, ".entry")) {
		p += strlen(".entry");
		p += strspn(p, " \t\r\n");
		if (strncmp(p, name, n) == 0 && strchr(" \t\r\n({", p[n])) return p + n;
	}
	return NULL;
}

// measure reads the parameters: ".param .align 8 .b8 name[120]", ".param .u64 name".
static void measure(function *f, const char *p) {
	const char *end = strchr(p, '{');
	if (!end) db_die("cuModuleGetFunction: kernel %s has no body", f->name);
	while ((p = strstr(p, ".param")) && p < end) {
		p += strlen(".param");
		const char *stop = strpbrk(p, ",)");
		size_t bits = 0, times = 1;
		for (const char *q = strchr(p, '.'); q && q < stop; q = strchr(q + 1, '.'))
			if (strchr("busf", q[1]) && q[2] >= '0' && q[2] <= '9') bits = strtoul(q + 2, NULL, 10);
		const char *many = strchr(p, '[');
		if (many && many < stop) times = strtoul(many + 1, NULL, 10);
		if (!stop || !bits || f->params == PARAMS) db_die("cuModuleGetFunction: the parameters of kernel %s cannot be read", f->name);
		f->size[f->params++] = bits / 8 * times;
	}
}

API int cuModuleGetFunction(void **out, void *from, const char *name) {
	int r = db_enter();
	if (r) return r;
	module *m = from;
	db_use(&m->thing, "module", "cuModuleGetFunction");
	if (!out || !name) return CU_INVALID_VALUE;
	for (function *f = __atomic_load_n(&m->functions, __ATOMIC_ACQUIRE); f; f = f->next)
		if (strcmp(f->name, name) == 0) return *out = f, CU_OK;
	const char *p = entry(m->text, name);
	if (!p) return CU_NOT_FOUND;
	function *f = db_alloc(sizeof *f);
	snprintf(f->name, sizeof f->name, "%s", name);
	f->of = m;
	measure(f, p);
	f->next = __atomic_load_n(&m->functions, __ATOMIC_ACQUIRE);
	while (!__atomic_compare_exchange_n(&m->functions, &f->next, f, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {}
	*out = f;
	return CU_OK;
}

static int launch_run(void *arg) {
	launch *l = arg;
	db_use(&l->f->of->thing, "module", "a launch");
	if (fl_double_kernel && fl_double_kernel(l->f->name, l->params, l->grid, l->block) == 0) return CU_OK;
	if (strstr(l->f->name, "fault")) return CU_ILLEGAL_ADDRESS;
	db_die("kernel %s has no C version here", l->f->name);
}

API int cuLaunchKernel(void *from, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **params, void **extra) {
	int r = db_enter();
	if (r) return r;
	const function *f = from;
	if (!f) return CU_INVALID_HANDLE;
	db_use(&f->of->thing, "module", "cuLaunchKernel");
	if (extra || shared > 48 * 1024 || !gx || !gy || !gz || !bx || !by || !bz || gy > 65535 || gz > 65535 || (uint64_t)bx * by * bz > 1024 || bz > 64) return CU_INVALID_VALUE;
	if (f->params && !params) return CU_INVALID_VALUE;
	launch *l = db_alloc(sizeof *l);
	*l = (launch){.f = f, .grid = {gx, gy, gz}, .block = {bx, by, bz}};
	// The driver takes the parameters' values at the launch.
	size_t at = 0;
	for (int i = 0; i < f->params; i++) {
		if (f->size[i] > sizeof l->bytes - at) db_die("cuLaunchKernel: kernel %s has more than %d bytes of parameters", f->name, PARAM_BYTES);
		l->params[i] = (uint8_t *)l->bytes + at;
		memcpy(l->params[i], params[i], f->size[i]);
		at += (f->size[i] + 7) / 8 * 8;
	}
	return db_submit(stream, "cuLaunchKernel", launch_run, free, l, NULL);
}
