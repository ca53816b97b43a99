// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The way from a picture to a network's input, one thread a pixel of the input, with the
// bits of package tensor: weights are integers of 11 bits, a value is one rounded product
// and one rounded difference. The file is CUDA C for the device (cross/ptx makes prep.ptx
// of it) and plain C for tests without one. Each launch writes all of the input.
#include "kernel.h"

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__
#else
#include <string.h>

typedef struct {
	unsigned x, y, z;
} index3;

static _Thread_local index3 blockIdx, blockDim, threadIdx;

#define KERNEL static void
#define DEVICE static

// A call of its own keeps compilers that fuse products with differences from it.
static __attribute__((noinline)) float __fmul_rn(float a, float b) {
	return a * b;
}

static float __fsub_rn(float a, float b) {
	return a - b;
}

static float __uint2float_rn(uint32_t v) {
	return (float)v;
}
#endif

enum { BITS = 11, ONE = 1 << BITS };

// A tap is one output pixel in one direction: two neighbours of the source and the weight
// of the second, 0 to ONE.
typedef struct {
	uint32_t a, b, w;
} tap;

// Output pixel i of n has its centre at (i+0.5)*size/n - 0.5 in the source: exact in
// integers. Sizes are at most 2^14, so num is under 2^29. The quotient of num*ONE+n by 2n
// is taken in two steps, so that 32 bits are enough.
DEVICE tap tap_of(uint32_t i, uint32_t n, uint32_t size) {
	uint32_t num = (2 * i + 1) * size;
	num = num > n ? num - n : 0;
	uint32_t whole = num / (2 * n), rest = num - whole * (2 * n);
	uint32_t fixed = whole * ONE + (rest * ONE + n) / (2 * n);
	uint32_t last = (size - 1) * ONE;
	if (fixed > last) fixed = last;
	// The last pixel of the source is the second neighbour of the one before.
	tap t;
	t.a = fixed >> BITS;
	if (t.a + 2 > size) t.a = size < 2 ? 0 : size - 2;
	t.b = size < 2 ? 0 : t.a + 1;
	t.w = fixed - t.a * ONE;
	return t;
}

// place is where thread (x, y) writes, or false: nowhere. Outside of the picture it has
// written the padding.
DEVICE int place(const fl_prep_params *p, tap *h, tap *v, float **to) {
	uint32_t x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
	if (x >= (uint32_t)p->dst_w || y >= (uint32_t)p->dst_h) return 0;
	float *d = (float *)(uintptr_t)p->dst + (y * (uint32_t)p->dst_w + x) * (uint32_t)p->step;
	// Left of the picture and above it the difference wraps round and is large.
	uint32_t px = x - (uint32_t)p->fit_x, py = y - (uint32_t)p->fit_y;
	if (px >= (uint32_t)p->fit_w || py >= (uint32_t)p->fit_h) {
		for (int c = 0; c < 3; c++) d[p->plane[c]] = p->pad[c];
		return 0;
	}
	*h = tap_of(px, (uint32_t)p->fit_w, (uint32_t)p->src_w);
	*v = tap_of(py, (uint32_t)p->fit_h, (uint32_t)p->src_h);
	*to = d;
	return 1;
}

// mix writes a pixel from its four neighbours, which are R, G, B from the lowest byte on:
// two of the upper row and two of the lower. A sum is under 255 * 2^22.
DEVICE void mix(const fl_prep_params *p, const uint32_t px[4], uint32_t h, uint32_t v, float *to) {
	for (int c = 0; c < 3; c++) {
		uint32_t s = 8 * (uint32_t)c;
		uint32_t upper = (px[0] >> s & 255) * (ONE - h) + (px[1] >> s & 255) * h;
		uint32_t lower = (px[2] >> s & 255) * (ONE - h) + (px[3] >> s & 255) * h;
		uint32_t sum = upper * (ONE - v) + lower * v;
		to[p->plane[c]] = __fsub_rn(__fmul_rn(__uint2float_rn(sum >> p->shift), p->mul[c]), p->sub[c]);
	}
}

// fl_prep takes a picture of R, G, B and a fourth byte that is not looked at.
KERNEL fl_prep(const fl_prep_params p) {
	tap h, v;
	float *to;
	if (!place(&p, &h, &v, &to)) return;
	const uint8_t *src = (const uint8_t *)(uintptr_t)p.src;
	const uint32_t *upper = (const uint32_t *)(src + (int64_t)v.a * p.src_stride);
	const uint32_t *lower = (const uint32_t *)(src + (int64_t)v.b * p.src_stride);
	uint32_t px[4] = {upper[h.a], upper[h.b], lower[h.a], lower[h.b]};
	mix(&p, px, h.w, v.w, to);
}

// The conversion of NV12, in 1/65536:
//
//	R = clip((76309*(Y-16)               + rv*(V-128) + 32768) >> 16)
//	G = clip((76309*(Y-16) - gu*(U-128)  - gv*(V-128) + 32768) >> 16)
//	B = clip((76309*(Y-16) + bu*(U-128)               + 32768) >> 16)
//
// clip to 0..255, >> of a negative number rounds down; all sums are under 2^26. A pixel has
// the U and V of its block of 2x2, none in between. Pixels are converted before they are
// mixed, so that the input is what fl_prep makes of the converted picture.
enum {
	LUMA = 76309,
	RV_601 = 104597, GU_601 = 25675, GV_601 = 53279, BU_601 = 132201,
	RV_709 = 117489, GU_709 = 13975, GV_709 = 34925, BU_709 = 138438,
};

DEVICE uint32_t clip(int32_t v) {
	v = (v + 32768) >> 16;
	return v < 0 ? 0 : v > 255 ? 255 : (uint32_t)v;
}

DEVICE uint32_t nv12(const fl_prep_params *p, uint32_t x, uint32_t y) {
	const uint8_t *src = (const uint8_t *)(uintptr_t)p->src;
	const uint8_t *uv = src + p->chroma + (int64_t)(y >> 1) * p->chroma_stride + (x & ~1u);
	int32_t luma = LUMA * ((int32_t)src[(int64_t)y * p->src_stride + x] - 16);
	int32_t u = (int32_t)uv[0] - 128, v = (int32_t)uv[1] - 128;
	int32_t wide = p->matrix == 1;
	uint32_t r = clip(luma + (wide ? RV_709 : RV_601) * v);
	uint32_t g = clip(luma - (wide ? GU_709 : GU_601) * u - (wide ? GV_709 : GV_601) * v);
	uint32_t b = clip(luma + (wide ? BU_709 : BU_601) * u);
	return r | g << 8 | b << 16;
}

// fl_prep_nv12 takes a picture of two planes, as cameras and decoders give it: one of
// luma, one of U and V by turns with half the columns and half the rows.
KERNEL fl_prep_nv12(const fl_prep_params p) {
	tap h, v;
	float *to;
	if (!place(&p, &h, &v, &to)) return;
	uint32_t px[4] = {nv12(&p, h.a, v.a), nv12(&p, h.b, v.a), nv12(&p, h.a, v.b), nv12(&p, h.b, v.b)};
	mix(&p, px, h.w, v.w, to);
}

#ifdef __CUDACC__
// fl_fault writes to address 0, to see how a kernel that faults is survived. It is one
// instruction in words of PTX, since compilers may leave such a write out.
KERNEL fl_fault(void) {
	asm volatile("st.global.u32 [%0], %1;" ::"l"(0ull), "r"(1) : "memory");
}
#else
int fl_double_kernel(const char *name, void **params, unsigned grid[3], unsigned block[3]) {
	void (*kernel)(const fl_prep_params);
	if (!strcmp(name, "fl_prep")) kernel = fl_prep;
	else if (!strcmp(name, "fl_prep_nv12")) kernel = fl_prep_nv12;
	else return -1;
	fl_prep_params p;
	memcpy(&p, params[0], sizeof p);
	index3 dim = {block[0], block[1], block[2]};
	blockDim = dim;
	for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
		for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
			for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
				for (threadIdx.z = 0; threadIdx.z < dim.z; threadIdx.z++)
					for (threadIdx.y = 0; threadIdx.y < dim.y; threadIdx.y++)
						for (threadIdx.x = 0; threadIdx.x < dim.x; threadIdx.x++) kernel(p);
	return 0;
}
#endif
