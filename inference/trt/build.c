// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// From an ONNX file to a plan.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inner.h"

// builder holds what a build has made, so that one place frees it, in the order the
// library asks for: what was made from a thing goes before it.
typedef struct {
	fl_lib *l;
	void *builder, *config, *network, *parser, *timing, *memory;
	object monitor, calibrator;
} builder;

static void builder_free(builder *b) {
	fl_delete(b->memory);
	fl_parser_delete(b->l, b->parser);
	fl_delete(b->network);
	fl_delete(b->timing);
	fl_delete(b->config);
	fl_delete(b->builder);
}

// reason gives the newest error line of the library, or other.
static const char *reason(fl_lib *l, uint64_t before, char *buf, size_t n, const char *other) {
	fl_last_error(l, before, buf, n);
	return *buf ? buf : other;
}

static int parse(builder *b, const void *onnx, size_t size, fl_error *err) {
	fl_lib *l = b->l;
	uint64_t before = fl_errors(l);
	b->parser = l->make_parser(b->network, &l->logger, l->info.parser_version);
	if (!b->parser) return fl_fail(err, FL_LIBRARY, "createNvOnnxParser", "the parser library gave no parser");
	bool ok = PLAIN(l, bool, b->parser, Parser_parse, const void *, size_t, const char *)(b->parser, onnx, size, NULL);
	// Text that happens to be sound protobuf is an empty network to it.
	if (ok && METHOD(l, int32_t, b->network, NetworkDefinition_getNbOutputs)(fl_impl(b->network)) < 1)
		return fl_fail(err, FL_NETWORK, "IParser::parse", "the file holds no ONNX graph with an output");
	if (ok) return FL_OK;
	char buf[LOG_BYTES];
	if (PLAIN(l, int, b->parser, Parser_getNbErrors)(b->parser) > 0) {
		void *e = PLAIN(l, void *, b->parser, Parser_getError, int)(b->parser, 0);
		const char *text = PLAIN(l, const char *, e, ParserError_desc)(e);
		int node = PLAIN(l, int, e, ParserError_node)(e);
		return fl_fail(err, FL_NETWORK, "IParser::parse", "node %d: %s", node, text ? text : "no text");
	}
	return fl_fail(err, FL_NETWORK, "IParser::parse", "%s", reason(l, before, buf, sizeof buf, "the parser refuses the file and gives no reason"));
}

// profile gives the range of sizes where the first dimension of an input is open; an
// open one elsewhere is refused, since our tensors have fixed sizes.
static int profile(builder *b, const fl_build_options *o, fl_error *err) {
	fl_lib *l = b->l;
	void *net = b->network, *profile = NULL;
	int32_t n = METHOD(l, int32_t, net, NetworkDefinition_getNbInputs)(fl_impl(net));
	for (int32_t i = 0; i < n; i++) {
		void *t = METHOD(l, void *, net, NetworkDefinition_getInput, int32_t)(fl_impl(net), i);
		if (!t) return fl_fail(err, FL_NETWORK, "INetworkDefinition::getInput", "input %d cannot be had", i);
		const char *name = METHOD(l, const char *, t, Tensor_getName)(fl_impl(t));
		dims64 d = fl_dims_get(l, t, FL_Tensor_getDimensions, NULL);
		for (int k = 1; k < d.n; k++)
			if (d.d[k] < 1) return fl_fail(err, FL_NETWORK, "ITensor::getDimensions", "input %s has dimension %d open; only the first may be, export it with fixed sizes", name, k);
		if (d.n < 1 || d.d[0] >= 0) continue;
		if (!profile && !(profile = METHOD(l, void *, b->builder, Builder_createOptimizationProfile)(fl_impl(b->builder))))
			return fl_fail(err, FL_CALL, "IBuilder::createOptimizationProfile", "it gave none");
		const enum fl_value select[3] = {FL_OptProfileSelector_kMIN, FL_OptProfileSelector_kOPT, FL_OptProfileSelector_kMAX};
		for (int k = 0; k < 3; k++) {
			dims_any any;
			bool ok;
			d.d[0] = k == 0 ? 1 : o->max_batch;
			fl_dims_put(l, &any, &d);
			// 8 takes the Dims by value, the others by reference.
			if (l->info.major == 8) ok = METHOD(l, bool, profile, OptimizationProfile_setDimensions, const char *, int32_t, dims32)(fl_impl(profile), name, fl_v(l, select[k]), any.d32);
			else ok = METHOD(l, bool, profile, OptimizationProfile_setDimensions, const char *, int32_t, const void *)(fl_impl(profile), name, fl_v(l, select[k]), &any);
			if (!ok)
				return fl_fail(err, FL_NETWORK, "IOptimizationProfile::setDimensions", "input %s does not take a batch of %d", name, (int)d.d[0]);
		}
	}
	if (profile && METHOD(l, int32_t, b->config, BuilderConfig_addOptimizationProfile, const void *)(fl_impl(b->config), profile) < 0)
		return fl_fail(err, FL_NETWORK, "IBuilderConfig::addOptimizationProfile", "batches from 1 to %d are refused", o->max_batch);
	return FL_OK;
}

static void flag(builder *b, enum fl_value v) {
	if (fl_v(b->l, v) >= 0) METHOD(b->l, void, b->config, BuilderConfig_setFlag, int32_t)(fl_impl(b->config), fl_v(b->l, v));
}

static int place(builder *b, const fl_build_options *o, fl_built *out, fl_error *err) {
	fl_lib *l = b->l;
	void *c = b->config, *net = b->network;
	if (o->dla_core < 0) return FL_OK;
	int32_t cores = METHOD(l, int32_t, b->builder, Builder_getNbDLACores)(fl_impl(b->builder));
	if (o->dla_core >= cores) return fl_fail(err, FL_CALL, "IBuilder::getNbDLACores", "DLA core %d is asked for, this board has %d", o->dla_core, cores);
	METHOD(l, void, c, BuilderConfig_setDefaultDeviceType, int32_t)(fl_impl(c), fl_v(l, FL_DeviceType_kDLA));
	METHOD(l, void, c, BuilderConfig_setDLACore, int32_t)(fl_impl(c), o->dla_core);
	flag(b, FL_BuilderFlag_kGPU_FALLBACK);
	// Which layers the GPU will have to take, for the report.
	int32_t n = METHOD(l, int32_t, net, NetworkDefinition_getNbLayers)(fl_impl(net));
	size_t room = 1;
	for (int pass = 0; pass < 2; pass++) {
		if (pass == 1 && !(out->on_gpu = calloc(1, room))) return fl_fail(err, FL_MEMORY, "calloc", "%zu bytes", room);
		char *to = out->on_gpu;
		for (int32_t i = 0; i < n; i++) {
			void *layer = METHOD(l, void *, net, NetworkDefinition_getLayer, int32_t)(fl_impl(net), i);
			if (METHOD(l, bool, c, BuilderConfig_canRunOnDLA, const void *)(fl_impl(c), layer)) continue;
			const char *name = METHOD(l, const char *, layer, Layer_getName)(fl_impl(layer));
			if (pass == 0) room += strlen(name) + 1;
			else to += sprintf(to, "%s\n", name);
		}
	}
	return FL_OK;
}

static int configure(builder *b, const fl_build_options *o, fl_watch *w, fl_error *err) {
	fl_lib *l = b->l;
	void *c = b->config;
	if (o->fp16) flag(b, FL_BuilderFlag_kFP16);
	if (o->int8) flag(b, FL_BuilderFlag_kINT8);
	if (o->workspace > 0)
		METHOD(l, void, c, BuilderConfig_setMemoryPoolLimit, int32_t, size_t)(fl_impl(c), fl_v(l, FL_MemoryPoolType_kWORKSPACE), (size_t)o->workspace);
	if (o->level >= 0 && fl_has(l, FL_BuilderConfig_setBuilderOptimizationLevel))
		METHOD(l, void, c, BuilderConfig_setBuilderOptimizationLevel, int32_t)(fl_impl(c), o->level);
	// A stream beside the one we give would not be captured with it in a graph.
	if (fl_has(l, FL_BuilderConfig_setMaxAuxStreams)) METHOD(l, void, c, BuilderConfig_setMaxAuxStreams, int32_t)(fl_impl(c), 0);
	if (fl_has(l, FL_BuilderConfig_setProfilingVerbosity))
		METHOD(l, void, c, BuilderConfig_setProfilingVerbosity, int32_t)(fl_impl(c), fl_v(l, FL_ProfilingVerbosity_kDETAILED));
	if (w && fl_has(l, FL_BuilderConfig_setProgressMonitor)) {
		fl_monitor_init(l, &b->monitor, w);
		METHOD(l, void, c, BuilderConfig_setProgressMonitor, void *)(fl_impl(c), &b->monitor);
	}
	if (o->calibration) {
		if (!fl_has(l, FL_BuilderConfig_setInt8Calibrator))
			return fl_fail(err, FL_CALL, "IBuilderConfig::setInt8Calibrator", "TensorRT %d has no calibrators; build from the Q/DQ network", l->info.major);
		fl_calibrator_init(l, &b->calibrator, o->calibration, o->calibration_size);
		METHOD(l, void, c, BuilderConfig_setInt8Calibrator, void *)(fl_impl(c), &b->calibrator);
	}
	// A cache that the library does not know (another version) is one that is empty.
	b->timing = METHOD(l, void *, c, BuilderConfig_createTimingCache, const void *, size_t)(fl_impl(c), o->timing, o->timing ? o->timing_size : 0);
	if (!b->timing && o->timing) b->timing = METHOD(l, void *, c, BuilderConfig_createTimingCache, const void *, size_t)(fl_impl(c), NULL, 0);
	if (b->timing && !METHOD(l, bool, c, BuilderConfig_setTimingCache, const void *, bool)(fl_impl(c), b->timing, false)) {
		fl_delete(b->timing);
		b->timing = NULL;
	}
	return FL_OK;
}

// keep copies a host memory of the library and frees it.
static int keep(fl_lib *l, void **memory, void **to, size_t *n, fl_error *err) {
	size_t size = METHOD(l, size_t, *memory, HostMemory_size)(fl_impl(*memory));
	const void *data = METHOD(l, const void *, *memory, HostMemory_data)(fl_impl(*memory));
	if (!(*to = malloc(size))) return fl_fail(err, FL_MEMORY, "malloc", "%zu bytes for what the library built", size);
	memcpy(*to, data, size);
	*n = size;
	fl_delete(*memory);
	*memory = NULL;
	return FL_OK;
}

// start makes builder, network and config. In 8 a network has to be told that its
// first dimension is the batch; since 10 there is no other kind.
static int start(builder *b, fl_error *err) {
	fl_lib *l = b->l;
	if (!l->make_builder) return fl_fail(err, FL_LIBRARY, "createInferBuilder", "this library runs engines and builds none (the lean runtime): install the full TensorRT");
	if (!l->make_parser) return fl_fail(err, FL_LIBRARY, "createNvOnnxParser", "libnvonnxparser is not there: install it beside libnvinfer (package libnvonnxparsers)");
	int rc;
	if (l->cu.dl && (rc = fl_enter(l, err))) return rc;
	uint64_t before = fl_errors(l);
	char buf[LOG_BYTES];
	b->builder = l->make_builder(&l->logger, l->info.version);
	if (!b->builder) return fl_fail(err, FL_DRIVER, "createInferBuilder", "%s", reason(l, before, buf, sizeof buf, "the library gave no builder; is there a GPU and a driver that is new enough?"));
	uint32_t flags = l->info.major == 8 ? 1u << fl_v(l, FL_NetworkDefinitionCreationFlag_kEXPLICIT_BATCH) : 0;
	b->network = METHOD(l, void *, b->builder, Builder_createNetworkV2, uint32_t)(fl_impl(b->builder), flags);
	b->config = METHOD(l, void *, b->builder, Builder_createBuilderConfig)(fl_impl(b->builder));
	if (!b->network || !b->config) return fl_fail(err, FL_CALL, "IBuilder::createNetworkV2", "%s", reason(l, before, buf, sizeof buf, "the library gave no network or no config"));
	return FL_OK;
}

int fl_build(fl_lib *l, const void *onnx, size_t size, const fl_build_options *o, fl_watch *w, fl_built *out, fl_error *err) {
	builder b = {.l = l};
	int rc;
	memset(out, 0, sizeof *out);
	if ((rc = start(&b, err))) goto done;
	if (o->threads > 0) METHOD(l, bool, b.builder, Builder_setMaxThreads, int32_t)(fl_impl(b.builder), o->threads);
	if ((rc = parse(&b, onnx, size, err))) goto done;
	if ((rc = profile(&b, o, err))) goto done;
	if ((rc = configure(&b, o, w, err))) goto done;
	if ((rc = place(&b, o, out, err))) goto done;
	out->layers = METHOD(l, int32_t, b.network, NetworkDefinition_getNbLayers)(fl_impl(b.network));
	uint64_t before = fl_errors(l);
	b.memory = METHOD(l, void *, b.builder, Builder_buildSerializedNetwork, void *, void *)(fl_impl(b.builder), b.network, b.config);
	if (!b.memory) {
		char buf[LOG_BYTES];
		if (w && __atomic_load_n(&w->cancel, __ATOMIC_ACQUIRE)) rc = fl_fail(err, FL_CANCELLED, "IBuilder::buildSerializedNetwork", "the build was cancelled");
		else {
			const char *why = reason(l, before, buf, sizeof buf, "the library built nothing and gave no reason");
			rc = fl_fail(err, fl_about_memory(why) ? FL_MEMORY : FL_NETWORK, "IBuilder::buildSerializedNetwork", "%s", why);
		}
	} else {
		rc = keep(l, &b.memory, &out->plan, &out->plan_size, err);
	}
	// What was timed is worth keeping also after a build that failed or was cancelled.
	if (b.timing && (b.memory = METHOD(l, void *, b.timing, TimingCache_serialize)(fl_impl(b.timing)))) {
		fl_error ignored;
		keep(l, &b.memory, &out->timing, &out->timing_size, &ignored);
	}
done:
	builder_free(&b);
	return rc;
}

void fl_built_free(fl_built *b) {
	free(b->plan);
	free(b->timing);
	free(b->on_gpu);
	memset(b, 0, sizeof *b);
}
