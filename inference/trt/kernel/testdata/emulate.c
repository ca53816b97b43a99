// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Runs the kernels on the CPU: records come in, the network's inputs go out. Source and
// destination end where the process's memory ends, so that a step outside ends it. With
// DEVICE and device.c it runs them on a device.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel.h"
#ifdef DEVICE
#include "device.h"
#endif

typedef struct {
	char name[16];
	uint32_t grid[3], block[3];
	uint64_t size; // of the source's memory, bytes
	uint64_t at;   // where in it src points to
	fl_prep_params params;
} record;

enum { PAGE = 1 << 16 };

static void die(const char *what) {
	fprintf(stderr, "emulate: %s\n", what);
	exit(1);
}

typedef struct {
	char *base;
	size_t whole, size;
} room;

// fenced gives memory that ends at a page which nobody may touch.
static char *fenced(room *r, size_t size) {
	r->size = size, r->whole = (size + 2 * PAGE - 1) / PAGE * PAGE + PAGE;
	r->base = mmap(NULL, r->whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->base == MAP_FAILED || mprotect(r->base + r->whole - PAGE, PAGE, PROT_NONE)) die("no memory");
	return r->base + r->whole - PAGE - size;
}

static void layout(void) {
	printf("%zu", sizeof(fl_prep_params));
#define FIELD(f) printf(" %zu", offsetof(fl_prep_params, f))
	FIELD(src), FIELD(dst), FIELD(chroma), FIELD(src_w), FIELD(src_h), FIELD(src_stride), FIELD(chroma_stride);
	FIELD(dst_w), FIELD(dst_h), FIELD(fit_x), FIELD(fit_y), FIELD(fit_w), FIELD(fit_h), FIELD(plane), FIELD(step);
	FIELD(shift), FIELD(matrix), FIELD(mul), FIELD(sub), FIELD(pad), FIELD(reserved);
	printf("\n");
}

int main(int argc, char **argv) {
	if (argc > 1 && !strcmp(argv[1], "layout")) return layout(), 0;
#ifdef DEVICE
	if (argc > 1 && !strcmp(argv[1], "fault")) return printf("%d\n", device_fault()), 0;
#endif
	for (record r; fread(&r, sizeof r, 1, stdin) == 1;) {
		room in, out;
		char *src = fenced(&in, r.size);
		if (fread(src, 1, r.size, stdin) != r.size) die("the source is short");
		size_t size = sizeof(float) * 3 * (size_t)r.params.dst_w * (size_t)r.params.dst_h;
		char *dst = fenced(&out, size);
		memset(dst, 0xfe, size);
#ifdef DEVICE
		if (device_run(r.name, &r.params, r.grid, r.block, src, r.at, r.size, dst, size)) die("the kernel failed");
#else
		r.params.src = (uintptr_t)src + r.at, r.params.dst = (uintptr_t)dst;
		void *params[] = {&r.params};
		if (fl_double_kernel(r.name, params, r.grid, r.block)) die("no such kernel");
#endif
		for (char *p = out.base; p < dst; p++)
			if (*p) die("the kernel wrote before its destination");
		if (fwrite(dst, 1, size, stdout) != size || fflush(stdout)) die("the output is closed");
		munmap(in.base, in.whole), munmap(out.base, out.whole);
	}
	return 0;
}
