// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for IBuilderConfig, ITimingCache, IOptimizationProfile and IHostMemory.
#include <stdlib.h>
#include <string.h>

#include "object.h"

typedef struct {
	void *bytes;
	size_t n;
} memory;

uint32_t db_crc(const void *p, size_t n) {
	uint32_t c = ~0u;
	for (const uint8_t *b = p; n--; b++) {
		c ^= *b;
		for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
	}
	return ~c;
}

static void memory_drop(void *data) {
	free(((memory *)data)->bytes);
	free(data);
}

db_object *db_memory(void *bytes, size_t n, void *logger) {
	memory *m = db_alloc(sizeof *m);
	*m = (memory){bytes, n};
	db_object *o = db_new(FL_C_HostMemory, NULL, false, m, memory_drop);
	o->logger = logger;
	return o;
}

static void *memory_data(void *self) { return ((memory *)db_self(self, FL_HostMemory_data))->bytes; }
static size_t memory_size(void *self) { return ((memory *)db_self(self, FL_HostMemory_size))->n; }

static void config_flag(void *self, int32_t flag) {
	db_config *c = db_self(self, FL_BuilderConfig_setFlag);
	const enum fl_value known[] = {FL_BuilderFlag_kFP16, FL_BuilderFlag_kINT8, FL_BuilderFlag_kGPU_FALLBACK, FL_BuilderFlag_kPREFER_PRECISION_CONSTRAINTS, FL_BuilderFlag_kTF32};
	bool ok = false;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok |= flag >= 0 && flag == db_v(known[i]);
	if (!ok) db_die("BuilderConfig::setFlag: flag %d is not one that TensorRT %d has for us", flag, DOUBLE_MAJOR);
	c->flags |= 1u << flag;
}

static void config_pool(void *self, int32_t pool, size_t n) {
	db_object *o = db_self_object(self, FL_BuilderConfig_setMemoryPoolLimit);
	if (pool != db_v(FL_MemoryPoolType_kWORKSPACE) && pool != db_v(FL_MemoryPoolType_kDLA_MANAGED_SRAM)) db_die("BuilderConfig::setMemoryPoolLimit: pool %d", pool);
	db_log(o->logger, FL_Severity_kVERBOSE, "double config: pool %d is %zu bytes", pool, n);
}

static void config_device(void *self, int32_t type) {
	db_config *c = db_self(self, FL_BuilderConfig_setDefaultDeviceType);
	if (type != db_v(FL_DeviceType_kGPU) && type != db_v(FL_DeviceType_kDLA)) db_die("BuilderConfig::setDefaultDeviceType: type %d", type);
	c->device = type;
}

static void config_dla(void *self, int32_t core) {
	db_object *o = db_self_object(self, FL_BuilderConfig_setDLACore);
	if (core < 0 || core >= db_get()->dla) db_log(o->logger, FL_Severity_kERROR, "double config: DLA core %d of %ld", core, db_get()->dla);
	else ((db_config *)o->data)->dla_core = core;
}

static bool config_can_dla(void *self, const void *layer) {
	db_self(self, FL_BuilderConfig_canRunOnDLA);
	const db_layer *l = db_argument(layer, FL_C_Layer, FL_BuilderConfig_canRunOnDLA)->data;
	return l->node->op == OP_Conv || l->node->op == OP_Relu;
}

// A timing cache as bytes: magic, version, count, a number for each layer, a checksum.
typedef struct {
	char magic[8];
	int32_t version, count;
} cache_head;
#define CACHE_MAGIC "FLDTIME"

static void cache_drop(void *data) {
	free(((db_timings *)data)->known);
	free(data);
}

static void *config_new_cache(void *self, const void *blob, size_t n) {
	db_object *o = db_self_object(self, FL_BuilderConfig_createTimingCache);
	db_timings *t = db_alloc(sizeof *t);
	if (blob && n) {
		cache_head h = {0};
		uint32_t crc = 0;
		if (n > sizeof h + sizeof crc) {
			memcpy(&h, blob, sizeof h);
			memcpy(&crc, (const char *)blob + n - sizeof crc, sizeof crc);
		}
		bool whole = memcmp(h.magic, CACHE_MAGIC, sizeof h.magic) == 0 && h.count >= 0 && n == sizeof h + (size_t)h.count * 8 + sizeof crc && crc == db_crc(blob, n - sizeof crc);
		if (!whole || h.version != db_version()) {
			db_log(o->logger, FL_Severity_kERROR, "double: timing cache is %s", whole ? "of another version" : "damaged");
			free(t);
			return NULL;
		}
		t->count = t->room = h.count;
		t->known = db_alloc((size_t)h.count * 8);
		memcpy(t->known, (const char *)blob + sizeof h, (size_t)h.count * 8);
	} else if (blob || n) db_die("BuilderConfig::createTimingCache: %p with %zu bytes", blob, n);
	db_object *cache = db_new(FL_C_TimingCache, NULL, false, t, cache_drop);
	cache->logger = o->logger;
	return db_public(cache);
}

static bool config_cache(void *self, const void *cache, bool ignore) {
	(void)ignore;
	((db_config *)db_self(self, FL_BuilderConfig_setTimingCache))->cache = db_argument(cache, FL_C_TimingCache, FL_BuilderConfig_setTimingCache);
	return true;
}

static void *cache_serialize(void *self) {
	db_object *o = db_self_object(self, FL_TimingCache_serialize);
	const db_timings *t = o->data;
	size_t n = sizeof(cache_head) + (size_t)t->count * 8;
	char *bytes = db_alloc(n + 4);
	cache_head h = {CACHE_MAGIC, db_version(), t->count};
	memcpy(bytes, &h, sizeof h);
	if (t->count) memcpy(bytes + sizeof h, t->known, (size_t)t->count * 8);
	uint32_t crc = db_crc(bytes, n);
	memcpy(bytes + n, &crc, 4);
	return db_public(db_memory(bytes, n + 4, o->logger));
}

static int32_t config_profile(void *self, const void *profile) {
	db_object *o = db_self_object(self, FL_BuilderConfig_addOptimizationProfile), *p = db_argument(profile, FL_C_OptimizationProfile, FL_BuilderConfig_addOptimizationProfile);
	db_config *c = o->data;
	const db_profile *pr = p->data;
	for (int i = 0; i < pr->count; i++) {
		const db_shape *s = pr->range[i].shape;
		bool ok = pr->set[i] == 7 && s[0].n == s[1].n && s[1].n == s[2].n;
		for (int d = 0; ok && d < s[0].n; d++) ok = s[0].d[d] <= s[1].d[d] && s[1].d[d] <= s[2].d[d];
		if (ok) continue;
		db_log(o->logger, FL_Severity_kERROR, "double: profile of %s needs least <= best <= most", pr->name[i]);
		return -1;
	}
	if (c->profiles == DB_PROFILES) return -1;
	c->profile[c->profiles] = p;
	return c->profiles++;
}

static void config_level(void *self, int32_t level) {
	db_object *o = db_self_object(self, FL_BuilderConfig_setBuilderOptimizationLevel);
	if (level < 0 || level > 5) db_log(o->logger, FL_Severity_kERROR, "double config: optimization level %d", level);
	else ((db_config *)o->data)->level = level;
}
static void config_verbosity(void *self, int32_t v) {
	if (v < 0 || v > 2) db_die("BuilderConfig::setProfilingVerbosity: %d", v);
	((db_config *)db_self(self, FL_BuilderConfig_setProfilingVerbosity))->verbosity = v;
}
static void config_monitor(void *self, void *monitor) {
	db_config *c = db_self(self, FL_BuilderConfig_setProgressMonitor);
	if (monitor) db_meet(monitor, FL_ProgressMonitor_getAPILanguage, FL_ProgressMonitor_getInterfaceInfo, "IProgressMonitor");
	c->monitor = monitor;
}
static void config_calibrator(void *self, void *calibrator) {
	db_config *c = db_self(self, FL_BuilderConfig_setInt8Calibrator);
	if (calibrator) db_meet(calibrator, FL_Int8Calibrator_getAPILanguage, FL_Int8Calibrator_getInterfaceInfo, "IInt8EntropyCalibrator2");
	c->calibrator = calibrator;
}
// In 11 it returns bool; what a void function leaves in the register nobody reads.
static bool config_aux(void *self, int32_t n) {
	db_config *c = db_self(self, FL_BuilderConfig_setMaxAuxStreams);
	c->aux = n;
	return n >= 0;
}

static bool dimensions(void *self, const char *name, int32_t select, const db_dims *dims) {
	db_object *o = db_self_object(self, FL_OptimizationProfile_setDimensions);
	db_profile *p = o->data;
	db_shape s;
	if (!name) db_die("OptimizationProfile::setDimensions: no name");
	int at = select == db_v(FL_OptProfileSelector_kMIN) ? 0 : select == db_v(FL_OptProfileSelector_kOPT) ? 1 : select == db_v(FL_OptProfileSelector_kMAX) ? 2 : -1;
	bool ok = at >= 0 && db_from_dims(dims, &s) && s.n > 0;
	for (int d = 0; ok && d < s.n; d++) ok = s.d[d] >= 0;
	if (!ok) {
		db_log(o->logger, FL_Severity_kERROR, "double: profile of %s refuses dimensions", name);
		return false;
	}
	int i = 0;
	while (i < p->count && strcmp(p->name[i], name) != 0) i++;
	if (i == DB_INPUTS) return false;
	if (i == p->count) p->name[p->count++] = db_strdup(name);
	p->range[i].shape[at] = s;
	p->set[i] |= 1u << at;
	return true;
}
#if DOUBLE_MAJOR == 8
static bool profile_dimensions(void *self, const char *name, int32_t select, db_dims dims) { return dimensions(self, name, select, &dims); }
#else
static bool profile_dimensions(void *self, const char *name, int32_t select, const db_dims *dims) { return dimensions(self, name, select, dims); }
#endif

const db_method db_config_methods[] = {
	{FL_HostMemory_data, (void *)memory_data},
	{FL_HostMemory_size, (void *)memory_size},
	{FL_BuilderConfig_setFlag, (void *)config_flag},
	{FL_BuilderConfig_setMemoryPoolLimit, (void *)config_pool},
	{FL_BuilderConfig_setDefaultDeviceType, (void *)config_device},
	{FL_BuilderConfig_setDLACore, (void *)config_dla},
	{FL_BuilderConfig_canRunOnDLA, (void *)config_can_dla},
	{FL_BuilderConfig_createTimingCache, (void *)config_new_cache},
	{FL_BuilderConfig_setTimingCache, (void *)config_cache},
	{FL_BuilderConfig_addOptimizationProfile, (void *)config_profile},
	{FL_BuilderConfig_setBuilderOptimizationLevel, (void *)config_level},
	{FL_BuilderConfig_setProfilingVerbosity, (void *)config_verbosity},
	{FL_BuilderConfig_setProgressMonitor, (void *)config_monitor},
	{FL_BuilderConfig_setInt8Calibrator, (void *)config_calibrator},
	{FL_BuilderConfig_setMaxAuxStreams, (void *)config_aux},
	{FL_TimingCache_serialize, (void *)cache_serialize},
	{FL_OptimizationProfile_setDimensions, (void *)profile_dimensions},
	{0, NULL},
};
