// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for IBuilder: from a network to the bytes of a plan.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "object.h"

void db_network_drop(void *data);

typedef struct {
	db_object *profile[64];
	int profiles;
} builder;

static void builder_drop(void *data) {
	builder *b = data;
	for (int i = 0; i < b->profiles; i++) db_end_owned(b->profile[i]);
	free(b);
}

static void profile_drop(void *data) {
	db_profile *p = data;
	for (int i = 0; i < p->count; i++) free(p->name[i]);
	free(p);
}

static void *builder_config(void *self) {
	db_config *c = db_alloc(sizeof *c);
	c->dla_core = -1;
	db_reread();
	return db_public(db_new(FL_C_BuilderConfig, db_self_object(self, FL_Builder_createBuilderConfig), false, c, free));
}

static void *builder_network(void *self, uint32_t flags) {
	db_object *o = db_self_object(self, FL_Builder_createNetworkV2);
	const enum fl_value known[] = {FL_NetworkDefinitionCreationFlag_kEXPLICIT_BATCH, FL_NetworkDefinitionCreationFlag_kSTRONGLY_TYPED};
	uint32_t allowed = DOUBLE_MAJOR == 8 ? 0 : 1; // 10 still takes the old bit of kEXPLICIT_BATCH
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (db_v(known[i]) >= 0) allowed |= 1u << db_v(known[i]);
	if (flags & ~allowed) db_die("Builder::createNetworkV2: flags %#x have bits that TensorRT %d does not know", flags, DOUBLE_MAJOR);
	db_network *n = db_alloc(sizeof *n);
	n->flags = flags;
	int strong = db_v(FL_NetworkDefinitionCreationFlag_kSTRONGLY_TYPED);
	n->strong = DOUBLE_MAJOR == 11 || (strong >= 0 && flags & 1u << strong);
	return db_public(db_new(FL_C_NetworkDefinition, o, false, n, db_network_drop));
}

static void *builder_profile(void *self) {
	db_object *o = db_self_object(self, FL_Builder_createOptimizationProfile);
	builder *b = o->data;
	if (b->profiles == 64) db_die("Builder::createOptimizationProfile: over 64");
	return db_public(b->profile[b->profiles++] = db_new(FL_C_OptimizationProfile, o, true, db_alloc(sizeof(db_profile)), profile_drop));
}

static int32_t builder_dla(void *self) {
	db_self(self, FL_Builder_getNbDLACores);
	db_reread();
	return (int32_t)db_get()->dla;
}

static bool builder_threads(void *self, int32_t n) {
	db_object *o = db_self_object(self, FL_Builder_setMaxThreads);
	if (n < 1) return false;
	db_log(o->logger, FL_Severity_kVERBOSE, "double builder: %d threads", n);
	return true;
}

// ranges fills in what sizes each input may have, in each profile.
static bool ranges(db_object *o, const db_network *n, const db_config *c, db_plan *p) {
	const db_graph *g = n->graph;
	bool open = false;
	for (int i = 0; i < g->inputs; i++) open |= db_count(&g->value[g->in[i]].shape) < 0;
	if (open && !c->profiles) {
		db_log(o->logger, FL_Severity_kERROR, "Network has dynamic or shape inputs, but no optimization profile has been defined");
		return false;
	}
	p->profiles = c->profiles ? c->profiles : 1;
	for (int k = 0; k < p->profiles; k++)
		for (int i = 0; i < g->inputs; i++) {
			const db_value *v = &g->value[g->in[i]];
			const db_profile *pr = c->profiles ? c->profile[k]->data : NULL;
			int at = 0;
			while (pr && at < pr->count && strcmp(pr->name[at], v->name) != 0) at++;
			bool given = pr && at < pr->count;
			for (int s = 0; s < 3; s++) p->range[k][i].shape[s] = given ? pr->range[at].shape[s] : v->shape;
			bool fits = given || db_count(&v->shape) >= 0;
			for (int s = 0; s < 3 && given; s++) {
				const db_shape *q = &pr->range[at].shape[s];
				fits = fits && q->n == v->shape.n;
				for (int d = 0; fits && d < q->n; d++) fits = v->shape.d[d] < 0 || v->shape.d[d] == q->d[d];
			}
			if (fits) continue;
			db_log(o->logger, FL_Severity_kERROR, "double: profile %d does not fit input %s", k, v->name);
			return false;
		}
	return true;
}

// lays_out is whether the network works in the smallest and largest sizes.
static bool lays_out(db_object *o, const db_graph *g, const db_plan *p) {
	db_fault fault;
	for (int k = 0; k < p->profiles; k++)
		for (int s = 0; s < 3; s += 2) {
			db_shape in[DB_INPUTS];
			for (int i = 0; i < g->inputs; i++) in[i] = p->range[k][i].shape[s];
			db_exec *x = db_exec_new(g, in, &fault);
			if (!x) {
				db_log(o->logger, FL_Severity_kERROR, "double: %s", fault.text);
				return false;
			}
			db_exec_free(x);
		}
	return true;
}

static bool flagged(const db_config *c, enum fl_value v) { return db_v(v) >= 0 && c->flags & 1u << db_v(v); }

// precision checks what may be asked for together.
static bool precision(db_object *o, const db_network *n, const db_config *c) {
	bool int8 = flagged(c, FL_BuilderFlag_kINT8), fp16 = flagged(c, FL_BuilderFlag_kFP16);
	const char *wrong = NULL;
	if (n->graph->quantized && !int8 && !n->strong) wrong = "Int8 precision has been set for a layer or layer output, but int8 is not configured in the builder";
	if (n->strong && (int8 || fp16)) wrong = "double: a strongly typed network takes no kINT8 and no kFP16";
	if (c->calibrator && !int8) wrong = "double: a calibrator without kINT8";
	if (wrong) db_log(o->logger, FL_Severity_kERROR, "%s", wrong);
	return !wrong;
}

static bool dla(db_object *o, const db_network *n, const db_config *c) {
	if (c->device != db_v(FL_DeviceType_kDLA)) return true;
	if (c->dla_core < 0) {
		db_log(o->logger, FL_Severity_kERROR, "double: DLA is the device, and no core is set");
		return false;
	}
	for (int i = 0; i < n->graph->nodes; i++) {
		const db_node *k = &n->graph->node[i];
		if (k->op == OP_Conv || k->op == OP_Relu || flagged(c, FL_BuilderFlag_kGPU_FALLBACK)) continue;
		db_log(o->logger, FL_Severity_kERROR, "double: %s cannot run on DLA, and GPU fallback is not enabled", k->name);
		return false;
	}
	db_log(o->logger, FL_Severity_kINFO, "double: DLA core %d", c->dla_core);
	return true;
}

// calibrate asks the calibrator as TensorRT does: for a cache first, for batches if
// there is none.
static bool calibrate(db_object *o, const db_network *n, const db_config *c) {
	void *k = c->calibrator;
	if (!k || DOUBLE_MAJOR == 11) return true;
	int32_t algorithm = ((int32_t(*)(void *))db_ours(k, FL_Int8Calibrator_getAlgorithm))(k);
	if (algorithm != db_v(FL_CalibrationAlgoType_kENTROPY_CALIBRATION_2)) db_die("Int8Calibrator::getAlgorithm gives %d", algorithm);
	int32_t batch = ((int32_t(*)(void *))db_ours(k, FL_Int8Calibrator_getBatchSize))(k);
	if (batch < 1) db_die("Int8Calibrator::getBatchSize gives %d", batch);
	size_t size = 0;
	const char *cache = ((const char *(*)(void *, size_t *))db_ours(k, FL_Int8Calibrator_readCalibrationCache))(k, &size);
	if (cache) {
		const char *end = memchr(cache, '\n', size);
		db_log(o->logger, FL_Severity_kINFO, "double: calibration cache of %zu bytes, %.*s", size, end ? (int)(end - cache) : 0, cache);
		if (size >= 4 && memcmp(cache, "TRT-", 4) == 0) return true;
		db_log(o->logger, FL_Severity_kERROR, "double: calibration cache does not begin with TRT-");
		return false;
	}
	void *bindings[DB_INPUTS] = {0};
	const char *names[DB_INPUTS];
	for (int i = 0; i < n->graph->inputs; i++) names[i] = n->graph->value[n->graph->in[i]].name;
	int batches = 0;
	while (batches < 1000 && ((bool (*)(void *, void **, const char **, int32_t))db_ours(k, FL_Int8Calibrator_getBatch))(k, bindings, names, n->graph->inputs)) batches++;
	if (!batches) {
		db_log(o->logger, FL_Severity_kERROR, "double: calibration got no batch");
		return false;
	}
	static const char made[] = "TRT-double-EntropyCalibration2\n";
	((void (*)(void *, const void *, size_t))db_ours(k, FL_Int8Calibrator_writeCalibrationCache))(k, made, strlen(made));
	return true;
}

static void phase(void *m, enum fl_method which, const char *name, const char *parent, int32_t steps) {
	if (!m) return;
	if (which == FL_ProgressMonitor_phaseStart) ((void (*)(void *, const char *, const char *, int32_t))db_ours(m, which))(m, name, parent, steps);
	else ((void (*)(void *, const char *))db_ours(m, which))(m, name);
}

static bool step(void *m, const char *name, int32_t i) {
	return !m || ((bool (*)(void *, const char *, int32_t))db_ours(m, FL_ProgressMonitor_stepComplete))(m, name, i);
}

static uint64_t fingerprint(const db_node *n) {
	uint64_t h = 1469598103934665603ULL;
	for (const uint8_t *p = n->raw.p; p < n->raw.end; p++) h = (h ^ *p) * 1099511628211ULL;
	return h;
}

static bool timed_before(const db_timings *t, uint64_t h) {
	for (int i = 0; t && i < t->count; i++)
		if (t->known[i] == h) return true;
	return false;
}

static void remember(db_timings *t, uint64_t h) {
	if (!t) return;
	if (t->count == t->room) {
		t->room = 2 * t->room + 16;
		t->known = realloc(t->known, (size_t)t->room * 8);
		if (!t->known) db_die("the host has no memory left for a timing cache");
	}
	t->known[t->count++] = h;
}

// time_layers is where a build spends its time; false if it was cancelled.
static bool time_layers(db_object *o, const db_graph *g, const db_config *c) {
	void *m = DOUBLE_MAJOR == 8 ? NULL : c->monitor;
	db_timings *t = c->cache ? c->cache->data : NULL;
	long each = db_get()->buildms * 1000 / g->nodes;
	int hits = 0;
	bool go = true;
	phase(m, FL_ProgressMonitor_phaseStart, "Building", NULL, g->nodes);
	for (int i = 0; i < g->nodes && go; i++) {
		uint64_t h = fingerprint(&g->node[i]);
		if (timed_before(t, h)) hits++;
		else {
			phase(m, FL_ProgressMonitor_phaseStart, "Timing", "Building", 1);
			struct timespec ts = {each / 1000000, each % 1000000 * 1000};
			if (each) nanosleep(&ts, NULL);
			remember(t, h);
			go = step(m, "Timing", 0);
			phase(m, FL_ProgressMonitor_phaseFinish, "Timing", NULL, 0);
		}
		go = step(m, "Building", i) && go;
	}
	phase(m, FL_ProgressMonitor_phaseFinish, "Building", NULL, 0);
	if (!go) db_log(o->logger, FL_Severity_kERROR, "double: build cancelled");
	else if (hits == g->nodes) db_log(o->logger, FL_Severity_kINFO, "double: timing cache hit");
	else if (hits) db_log(o->logger, FL_Severity_kINFO, "double: timing cache hit for %d of %d layers", hits, g->nodes);
	return go;
}

static db_object *write_plan(db_object *o, const db_network *n, db_plan *p) {
	size_t size = sizeof *p + n->onnx_size;
	uint8_t *bytes = db_alloc(size + 4);
	p->onnx_size = n->onnx_size;
	memcpy(bytes, p, sizeof *p);
	memcpy(bytes + sizeof *p, n->graph->bytes, n->onnx_size);
	uint32_t crc = db_crc(bytes, size);
	memcpy(bytes + size, &crc, 4);
	return db_memory(bytes, size + 4, o->logger);
}

static void *builder_build(void *self, void *network, void *config) {
	db_object *o = db_self_object(self, FL_Builder_buildSerializedNetwork);
	db_network *n = db_argument(network, FL_C_NetworkDefinition, FL_Builder_buildSerializedNetwork)->data;
	db_config *c = db_argument(config, FL_C_BuilderConfig, FL_Builder_buildSerializedNetwork)->data;
	db_reread();
	if (c->cache && !c->cache->thing.alive) db_die("Builder::buildSerializedNetwork: the timing cache was deleted before");
	if (!n->graph) {
		db_log(o->logger, FL_Severity_kERROR, "Network must have at least one output");
		return NULL;
	}
	if (!n->parser->thing.alive) db_die("Builder::buildSerializedNetwork: the parser, which holds the weights, was deleted before");
	if (db_get()->failbuild) {
		db_log(o->logger, FL_Severity_kERROR, "double: the build fails as asked");
		return NULL;
	}
	db_plan *p = db_alloc(sizeof *p);
	*p = (db_plan){DB_PLAN_MAGIC, db_version(), DOUBLE_MAJOR, db_cc(), db_sms(), 0, -1, 0, n->graph->inputs, {{{{{0}}}}}, 0};
	p->options = (flagged(c, FL_BuilderFlag_kINT8) ? PLAN_INT8 : 0) | (flagged(c, FL_BuilderFlag_kFP16) ? PLAN_FP16 : 0) | (n->strong ? PLAN_STRONG : 0) |
		(c->verbosity == db_v(FL_ProfilingVerbosity_kDETAILED) ? PLAN_DETAILED : 0);
	if (c->device == db_v(FL_DeviceType_kDLA)) p->dla_core = c->dla_core;
	db_object *made = NULL;
	if (ranges(o, n, c, p) && precision(o, n, c) && dla(o, n, c) && lays_out(o, n->graph, p) && calibrate(o, n, c) && time_layers(o, n->graph, c)) {
		made = write_plan(o, n, p);
		db_log(o->logger, FL_Severity_kINFO, "double: built %d layers, INT8 %d, FP16 %d, level %d", n->graph->nodes, !!(p->options & PLAN_INT8), !!(p->options & PLAN_FP16), c->level);
	}
	free(p);
	return db_public(made);
}

API void *createInferBuilder_INTERNAL(void *logger, int32_t version) {
	db_objects();
	db_meet(logger, FL_Logger_getAPILanguage, FL_Logger_getInterfaceInfo, "ILogger");
	if (version != db_version()) {
		db_log(logger, FL_Severity_kERROR, "double builder: made for version %d, this is %d", version, db_version());
		return NULL;
	}
	// A builder can be made where there is no driver at all.
	if (db_initialized() && !db_driver_is_new_enough(logger)) return NULL;
	db_object *o = db_new(FL_C_Builder, NULL, false, db_alloc(sizeof(builder)), builder_drop);
	o->logger = logger;
	db_log(logger, FL_Severity_kINFO, "double builder %s", db_version_text());
	return db_public(o);
}

const db_method db_build_methods[] = {
	{FL_Builder_createBuilderConfig, (void *)builder_config},
	{FL_Builder_createNetworkV2, (void *)builder_network},
	{FL_Builder_createOptimizationProfile, (void *)builder_profile},
	{FL_Builder_buildSerializedNetwork, (void *)builder_build},
	{FL_Builder_getNbDLACores, (void *)builder_dla},
	{FL_Builder_setMaxThreads, (void *)builder_threads},
	{0, NULL},
};
