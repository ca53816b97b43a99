// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for the calls of libcuda about the driver, the device and its context.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "double.h"

typedef struct {
	db_thing thing;
	int retained;
} context;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static atomic_int initialized, lost;
static context *primary;
static _Thread_local context *current; // CUDA keeps it for each thread

bool db_initialized(void) { return atomic_load(&initialized); }
bool db_lost(void) { return atomic_load(&lost); }
void db_lose(void) { atomic_store(&lost, 1); }

int db_enter(void) {
	if (!atomic_load(&initialized)) return CU_NOT_INITIALIZED;
	if (atomic_load(&lost)) return CU_ILLEGAL_ADDRESS;
	if (!current) return CU_INVALID_CONTEXT;
	return current->thing.alive ? CU_OK : CU_DESTROYED;
}

int db_driver(void) {
	long v = db_get()->driver;
	return v ? (int)v : DOUBLE_MAJOR == 8 ? 11040 : DOUBLE_MAJOR == 10 ? 12060 : 13000;
}

int db_cc(void) { return (int)db_get()->cc; }
int db_sms(void) { return 16; }

API int cuInit(unsigned flags) {
	db_reread();
	if (atomic_load(&lost)) return CU_ILLEGAL_ADDRESS;
	if (flags) return CU_INVALID_VALUE;
	if (db_get()->nodriver) return CU_NO_DEVICE;
	atomic_store(&initialized, 1);
	return CU_OK;
}

API int cuDriverGetVersion(int *out) {
	db_reread();
	if (!out) return CU_INVALID_VALUE;
	*out = db_driver();
	return CU_OK;
}

static int ready(void) {
	if (!atomic_load(&initialized)) return CU_NOT_INITIALIZED;
	return atomic_load(&lost) ? CU_ILLEGAL_ADDRESS : CU_OK;
}

API int cuDeviceGetCount(int *out) {
	int r = ready();
	if (r) return r;
	*out = 1;
	return CU_OK;
}

API int cuDeviceGet(int *out, int ordinal) {
	int r = ready();
	if (r) return r;
	if (ordinal != 0) return CU_INVALID_DEVICE;
	*out = 0;
	return CU_OK;
}

API int cuDeviceGetName(char *to, int n, int device) {
	int r = ready();
	if (r) return r;
	if (device != 0 || n < 1) return CU_INVALID_VALUE;
	snprintf(to, (size_t)n, "Double GPU");
	return CU_OK;
}

API int cuDeviceGetAttribute(int *out, int attribute, int device) {
	enum { MAX_THREADS_PER_BLOCK = 1, WARP_SIZE = 10, MULTIPROCESSORS = 16, INTEGRATED = 18, CAN_MAP = 19, UNIFIED = 41, CC_MAJOR = 75, CC_MINOR = 76 };
	int r = ready();
	if (r) return r;
	if (device != 0) return CU_INVALID_DEVICE;
	db_reread();
	switch (attribute) {
	case MAX_THREADS_PER_BLOCK: *out = 1024; break;
	case WARP_SIZE: *out = 32; break;
	case MULTIPROCESSORS: *out = db_sms(); break;
	case INTEGRATED: *out = db_get()->integrated != 0; break;
	case CAN_MAP: *out = 1; break;
	case UNIFIED: *out = 1; break;
	case CC_MAJOR: *out = db_cc() / 10; break;
	case CC_MINOR: *out = db_cc() % 10; break;
	default: return CU_INVALID_VALUE;
	}
	return CU_OK;
}

API int cuDeviceTotalMem_v2(size_t *out, int device) {
	int r = ready();
	if (r) return r;
	if (device != 0) return CU_INVALID_DEVICE;
	*out = (size_t)db_get()->memory << 20;
	return CU_OK;
}

API int cuDevicePrimaryCtxRetain(void **out, int device) {
	int r = ready();
	if (r) return r;
	if (device != 0) return CU_INVALID_DEVICE;
	pthread_mutex_lock(&mu);
	if (!primary || !primary->thing.alive) {
		primary = db_alloc(sizeof *primary);
		db_born(&primary->thing, "context", "the primary one");
	}
	primary->retained++;
	*out = primary;
	pthread_mutex_unlock(&mu);
	return CU_OK;
}

API int cuDevicePrimaryCtxRelease_v2(int device) {
	int r = ready();
	if (r) return r;
	if (device != 0) return CU_INVALID_DEVICE;
	pthread_mutex_lock(&mu);
	if (!primary || !primary->thing.alive) db_die("cuDevicePrimaryCtxRelease: the primary context was freed before");
	if (--primary->retained == 0) db_dead(&primary->thing, "context", "cuDevicePrimaryCtxRelease");
	pthread_mutex_unlock(&mu);
	return CU_OK;
}

API int cuCtxSetCurrent(void *c) {
	int r = ready();
	if (r) return r;
	context *k = c;
	if (k && (k->thing.magic != DB_THING || strcmp(k->thing.kind, "context") != 0 || !k->thing.alive)) return CU_INVALID_CONTEXT;
	current = k;
	return CU_OK;
}

static const struct {
	int code;
	const char *name, *text;
} errors[] = {
	{CU_OK, "CUDA_SUCCESS", "no error"},
	{CU_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
	{CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
	{CU_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
	{CU_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
	{CU_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
	{CU_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
	{CU_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
	{CU_NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
	{CU_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
	{CU_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
	{CU_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
	{CU_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
	{CU_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
	{CU_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
	{CU_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
	{CU_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
	{CU_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
	{CU_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
	{CU_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
	{CU_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
};

API int cuGetErrorName(int code, const char **out) {
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (errors[i].code == code) return *out = errors[i].name, CU_OK;
	*out = NULL;
	return CU_INVALID_VALUE;
}

API int cuGetErrorString(int code, const char **out) {
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (errors[i].code == code) return *out = errors[i].text, CU_OK;
	*out = NULL;
	return CU_INVALID_VALUE;
}
