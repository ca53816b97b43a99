// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The parameters of the preprocessing kernels, one struct by value, the same bytes on
// the host and on the device: little-endian, 128 bytes, no padding between fields.
#ifndef FULMAR_KERNEL_H
#define FULMAR_KERNEL_H

#ifdef __CUDACC__
typedef unsigned char uint8_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#else
#include <stdint.h>
#endif

typedef struct {
	uint64_t src;          //   0 address of the picture: RGBA, a multiple of 4; NV12: the plane of luma
	uint64_t dst;          //   8 address of the picture's place in the input, floats
	int64_t chroma;        //  16 NV12: bytes from src to the plane of U and V
	int32_t src_w;         //  24 the picture's size, pixels
	int32_t src_h;         //  28
	int32_t src_stride;    //  32 bytes between two rows; RGBA: a multiple of 4
	int32_t chroma_stride; //  36 NV12: the same of the second plane
	int32_t dst_w;         //  40 the input's size, pixels
	int32_t dst_h;         //  44
	int32_t fit_x;         //  48 where the picture lies in the input
	int32_t fit_y;         //  52
	int32_t fit_w;         //  56
	int32_t fit_h;         //  60
	int32_t plane[3];      //  64 where R, G and B begin in dst, floats
	int32_t step;          //  76 between two pixels of one channel, floats: 1 or 3
	int32_t shift;         //  80 fraction bits that are always 0 and go before the product: 0 or 20
	int32_t matrix;        //  84 NV12: 0 BT.601, 1 BT.709, both of limited range
	float mul[3];          //  88 a value is sum * mul - sub, by channel of the source
	float sub[3];          // 100
	float pad[3];          // 112 what lies around the picture, by channel of the source
	int32_t reserved;      // 124 0
} fl_prep_params;

#ifndef __CUDACC__
// fl_double_kernel runs a kernel of kernel.c on the CPU, thread by thread, as
// cuLaunchKernel would on the device. params are pointers to the kernel's parameters. It
// returns 0, or -1 for a name that it does not know; it has no fl_fault.
int fl_double_kernel(const char *name, void **params, unsigned grid[3], unsigned block[3]);
#endif
#endif
