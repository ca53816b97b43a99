// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The CUDA driver: opened by path, its errors, and kernels of ours.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "inner.h"

// CUdevice_attribute, from cuda.h; the numbers are the same in all releases.
enum { ATTRIBUTE_SMS = 16, ATTRIBUTE_INTEGRATED = 18, ATTRIBUTE_CC_MAJOR = 75, ATTRIBUTE_CC_MINOR = 76 };

// fl_is_sticky: after these the context answers nothing any more and only a new
// process helps (CUresult in cuda.h; "the context cannot be used" in its comments).
bool fl_is_sticky(cu_result r) {
	switch (r) {
	case 4:   // DEINITIALIZED
	case 201: // INVALID_CONTEXT: ours was current, so it is gone
	case 214: // ECC_UNCORRECTABLE
	case 220: // NVLINK_UNCORRECTABLE
	case 226: // CONTAINED
	case 700: // ILLEGAL_ADDRESS
	case 702: // LAUNCH_TIMEOUT
	case 709: // CONTEXT_IS_DESTROYED
	case 710: // ASSERT
	case 714: // HARDWARE_STACK_ERROR
	case 715: // ILLEGAL_INSTRUCTION
	case 716: // MISALIGNED_ADDRESS
	case 717: // INVALID_ADDRESS_SPACE
	case 718: // INVALID_PC
	case 719: // LAUNCH_FAILED
	case 999: // UNKNOWN
		return true;
	}
	return false;
}

int fl_cuda(fl_lib *l, fl_error *err, const char *call, cu_result r) {
	if (r == 0) return FL_OK;
	const char *name = NULL, *text = NULL;
	if (l->cu.error_name) l->cu.error_name(r, &name);
	if (l->cu.error_string) l->cu.error_string(r, &text);
	enum fl_kind kind = FL_CALL;
	if (r == 2) kind = FL_MEMORY; // OUT_OF_MEMORY
	if (fl_is_sticky(r)) {
		atomic_store(&l->sticky, 1);
		kind = FL_DEVICE;
	}
	fl_fail(err, kind, call, "%s", text ? text : "the driver gives no text for it");
	err->code = r;
	snprintf(err->name, sizeof err->name, "%s", name ? name : "CUDA error");
	return kind;
}

int fl_enter(fl_lib *l, fl_error *err) {
	if (atomic_load(&l->sticky)) return fl_fail(err, FL_DEVICE, "cuCtxSetCurrent", "the device was lost by an error before this call");
	if (!l->cu.dl) return fl_fail(err, FL_DRIVER, "cuCtxSetCurrent", "there is no CUDA driver");
	return fl_cuda(l, err, "cuCtxSetCurrent", l->cu.set_current(l->cu.context));
}

static int symbols(fl_lib *l, const char *path, fl_error *err) {
#define X(symbol, field, args) \
	if (!(*(void **)&l->cu.field = dlsym(l->cu.dl, symbol))) \
		return fl_fail(err, FL_DRIVER, "dlsym", "%s has no %s: it is no CUDA driver, or one older than 11.4 (JetPack 5)", path, symbol);
	CUDA_CALLS(X)
#undef X
	*(void **)&l->cu.instantiate = dlsym(l->cu.dl, "cuGraphInstantiateWithFlags");
	*(void **)&l->cu.instantiate_old = dlsym(l->cu.dl, "cuGraphInstantiate_v2");
	return FL_OK;
}

// describe fills in what is known of the device; an attribute that cannot be had
// stays 0.
static int describe(fl_lib *l, fl_error *err) {
	cuda *c = &l->cu;
	fl_info *i = &l->info;
	int rc;
	size_t memory = 0;
	if ((rc = fl_cuda(l, err, "cuDeviceGet", c->device_get(&c->device, 0)))) return rc;
	c->device_name(i->device, sizeof i->device, c->device);
	c->device_attribute(&i->cc_major, ATTRIBUTE_CC_MAJOR, c->device);
	c->device_attribute(&i->cc_minor, ATTRIBUTE_CC_MINOR, c->device);
	c->device_attribute(&i->sms, ATTRIBUTE_SMS, c->device);
	c->device_attribute(&i->integrated, ATTRIBUTE_INTEGRATED, c->device);
	c->device_memory(&memory, c->device);
	i->memory = (int64_t)memory;
	return FL_OK;
}

int fl_cuda_open(fl_lib *l, const char *path, fl_error *err) {
	cuda *c = &l->cu;
	int rc;
	c->dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!c->dl) return fl_fail(err, FL_DRIVER, "dlopen", "%s", dlerror());
	if ((rc = symbols(l, path, err))) goto failed;
	if ((rc = c->init(0))) {
		const char *name = NULL;
		c->error_name(rc, &name);
		int code = rc;
		rc = fl_fail(err, FL_DRIVER, "cuInit", "%s: no NVIDIA GPU is to be had here (%s): is the driver loaded, and may this user open /dev/nvidia* or /dev/nvgpu*?",
			path, name ? name : "no name");
		err->code = code;
		goto failed;
	}
	c->driver_version(&l->info.driver);
	if ((rc = fl_cuda(l, err, "cuDeviceGetCount", c->device_count(&l->info.devices)))) goto failed;
	if (l->info.devices < 1) {
		rc = fl_fail(err, FL_DRIVER, "cuDeviceGetCount", "%s answers, but there is no GPU", path);
		goto failed;
	}
	if ((rc = describe(l, err))) goto failed;
	// The primary context is the one that the libraries use through the CUDA runtime.
	if ((rc = fl_cuda(l, err, "cuDevicePrimaryCtxRetain", c->primary_retain(&c->context, c->device)))) goto failed;
	return FL_OK;
failed:
	memset(c, 0, sizeof *c);
	return rc;
}

cu_result fl_instantiate(cuda *c, cu_exec *out, cu_graph graph) {
	if (c->instantiate) return c->instantiate(out, graph, 0);
	if (c->instantiate_old) return c->instantiate_old(out, graph, NULL, NULL, 0);
	return 801; // NOT_SUPPORTED
}

void fl_cuda_close(fl_lib *l) {
	cuda *c = &l->cu;
	if (!c->dl) return;
	c->set_current(c->context);
	if (l->kernels) c->module_unload(l->kernels);
	l->kernels = NULL;
	c->primary_release(c->device);
	c->set_current(NULL);
}

int fl_kernels(fl_lib *l, const char *ptx, fl_error *err) {
	int rc;
	pthread_mutex_lock(&l->mu);
	if ((rc = fl_enter(l, err)) == FL_OK && !l->kernels)
		rc = fl_cuda(l, err, "cuModuleLoadData", l->cu.module_load(&l->kernels, ptx));
	pthread_mutex_unlock(&l->mu);
	return rc;
}

int fl_fault(fl_lib *l, const char *kernel, fl_error *err) {
	int rc;
	cu_function f;
	if ((rc = fl_enter(l, err))) return rc;
	if ((rc = fl_cuda(l, err, "cuModuleGetFunction", l->cu.module_function(&f, l->kernels, kernel)))) return rc;
	if ((rc = fl_cuda(l, err, "cuLaunchKernel", l->cu.launch(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL)))) return rc;
	return fl_cuda(l, err, "cuStreamSynchronize", l->cu.stream_sync(NULL));
}
