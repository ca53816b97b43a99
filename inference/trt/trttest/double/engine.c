// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for IRuntime, ICudaEngine and IEngineInspector.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

int db_io_count(const db_engine *e) { return e->graph->inputs + e->graph->outputs; }

const char *db_io_name(const db_engine *e, int i) {
	const db_graph *g = e->graph;
	return g->value[i < g->inputs ? g->in[i] : g->out[i - g->inputs]].name;
}

int db_io(const db_engine *e, const char *name) {
	if (!name) db_die("a tensor's name is NULL");
	for (int i = 0; i < db_io_count(e); i++)
		if (strcmp(db_io_name(e, i), name) == 0) return i;
	return -1;
}

static void engine_drop(void *data) {
	db_engine *e = data;
	if (e->weights) db_give(e->weights);
	db_graph_free(e->graph);
	free(e->inspected);
	free(e);
}

// refused says why a plan is, or gives NULL.
static const char *refused(const db_plan *p, const uint8_t *blob, size_t n, char *room, size_t room_size) {
	uint32_t crc;
	if (n < sizeof p->magic || memcmp(p->magic, DB_PLAN_MAGIC, sizeof p->magic) != 0) return "plan has no magic: it is none of this library";
	if (n < sizeof *p + 4) return "plan is truncated";
	if (p->version != db_version() || p->major != DOUBLE_MAJOR) {
		snprintf(room, room_size, "plan is of another version: %d, this is %d", p->version, db_version());
		return room;
	}
	if (p->onnx_size > n || sizeof *p + p->onnx_size + 4 > n) return "plan is truncated";
	memcpy(&crc, blob + sizeof *p + p->onnx_size, 4);
	if (sizeof *p + p->onnx_size + 4 != n || crc != db_crc(blob, n - 4)) return "plan is corrupted";
	if (p->cc != db_cc() || p->sms != db_sms()) {
		snprintf(room, room_size, "plan is of another GPU: compute capability %d.%d, this is %d.%d", p->cc / 10, p->cc % 10, db_cc() / 10, db_cc() % 10);
		return room;
	}
	if (p->dla_core >= 0 && p->dla_core >= db_get()->dla) return "plan wants a DLA core that is not here";
	return NULL;
}

static int64_t weights_of(const db_graph *g) {
	int64_t n = 256;
	for (int i = 0; i < g->values; i++)
		if (g->value[i].data) n += db_count(&g->value[i].shape) * 4;
	return n;
}

static bool fill(db_engine *e, db_object *o, const uint8_t *blob) {
	db_fault fault;
	db_shape in[DB_INPUTS];
	e->graph = db_graph_read(blob + sizeof e->plan, e->plan.onnx_size, &fault);
	if (!e->graph || !db_outputs(e->graph, e->out, &fault)) db_die("a plan of our own has a network that is refused: %s", fault.text);
	for (int k = 0; k < e->plan.profiles; k++) {
		for (int i = 0; i < e->graph->inputs; i++) in[i] = e->plan.range[k][i].shape[2];
		db_exec *x = db_exec_new(e->graph, in, &fault);
		if (!x) db_die("a plan of our own cannot be laid out: %s", fault.text);
		int64_t n = (db_exec_largest(x) * 2 + 255) / 256 * 256;
		if (n > e->scratch) e->scratch = n;
		db_exec_free(x);
	}
	int64_t n = weights_of(e->graph);
	int r = db_take(&e->weights, (size_t)n, "weights");
	if (r) db_log(o->logger, FL_Severity_kERROR, "double: out of memory for weights of %lld bytes", (long long)n);
	return r == CU_OK;
}

static void *deserialize(db_object *o, const void *blob, size_t n) {
	char room[160];
	db_reread();
	if (!blob || !n) {
		db_log(o->logger, FL_Severity_kERROR, "double: plan is empty");
		return NULL;
	}
	if (db_lost()) {
		db_log(o->logger, FL_Severity_kERROR, "double: CUDA error 700 in deserializeCudaEngine");
		return NULL;
	}
	db_engine *e = db_alloc(sizeof *e);
	memcpy(&e->plan, blob, n < sizeof e->plan ? n : sizeof e->plan);
	const char *why = refused(&e->plan, blob, n, room, sizeof room);
	if (why) db_log(o->logger, FL_Severity_kERROR, "double: %s", why);
	if (why || !fill(e, o, blob)) {
		engine_drop(e);
		return NULL;
	}
	db_log(o->logger, FL_Severity_kINFO, "double: loaded plan of %zu bytes", n);
	return db_public(db_new(FL_C_CudaEngine, o, false, e, engine_drop));
}

#if DOUBLE_MAJOR == 8
static void *runtime_deserialize(void *self, const void *blob, size_t n, void *factory) {
	if (factory) db_die("Runtime::deserializeCudaEngine: a plugin factory of %p, has to be NULL", factory);
	return deserialize(db_self_object(self, FL_Runtime_deserializeCudaEngine), blob, n);
}
#else
static void *runtime_deserialize(void *self, const void *blob, size_t n) { return deserialize(db_self_object(self, FL_Runtime_deserializeCudaEngine), blob, n); }
#endif

static void runtime_set_dla(void *self, int32_t core) {
	db_object *o = db_self_object(self, FL_Runtime_setDLACore);
	db_reread();
	if (core < 0 || core >= db_get()->dla) db_log(o->logger, FL_Severity_kERROR, "double runtime: DLA core %d of %ld", core, db_get()->dla);
	else db_log(o->logger, FL_Severity_kINFO, "double runtime: DLA core %d", core);
}
static int32_t runtime_dla(void *self) {
	db_self(self, FL_Runtime_getNbDLACores);
	db_reread();
	return (int32_t)db_get()->dla;
}

// at finds a tensor for a call, and says so if there is none.
static int at(void *self, enum fl_method m, const char *name, db_engine **e) {
	db_object *o = db_self_object(self, m);
	*e = o->data;
	int i = db_io(*e, name);
	if (i < 0) db_log(o->logger, FL_Severity_kERROR, "double: %s: no tensor %s", fl_method_names[m], name);
	return i;
}

static int32_t engine_tensors(void *self) { return db_io_count(db_self(self, FL_CudaEngine_getNbIOTensors)); }
static const char *engine_name(void *self, int32_t i) {
	const db_engine *e = db_self(self, FL_CudaEngine_getIOTensorName);
	return i >= 0 && i < db_io_count(e) ? db_io_name(e, i) : NULL;
}
static db_dims engine_shape(void *self, const char *name) {
	db_engine *e;
	int i = at(self, FL_CudaEngine_getTensorShape, name, &e);
	if (i < 0) return (db_dims){.n = -1};
	return db_to_dims(i < e->graph->inputs ? &e->graph->value[e->graph->in[i]].shape : &e->out[i - e->graph->inputs]);
}
static int32_t engine_type(void *self, const char *name) {
	db_engine *e;
	at(self, FL_CudaEngine_getTensorDataType, name, &e);
	return db_v(FL_DataType_kFLOAT);
}
static int32_t engine_mode(void *self, const char *name) {
	db_engine *e;
	int i = at(self, FL_CudaEngine_getTensorIOMode, name, &e);
	return i < 0 ? 0 : i < e->graph->inputs ? db_v(FL_TensorIOMode_kINPUT) : db_v(FL_TensorIOMode_kOUTPUT);
}
static int32_t engine_format(void *self, const char *name) {
	db_engine *e;
	at(self, FL_CudaEngine_getTensorFormat, name, &e);
	return db_v(FL_TensorFormat_kLINEAR);
}
static int32_t engine_location(void *self, const char *name) {
	db_engine *e;
	at(self, FL_CudaEngine_getTensorLocation, name, &e);
	return db_v(FL_TensorLocation_kDEVICE);
}
static db_dims engine_profile(void *self, const char *name, int32_t profile, int32_t select) {
	db_engine *e;
	int i = at(self, FL_CudaEngine_getProfileShape, name, &e);
	if (i < 0 || i >= e->graph->inputs || profile < 0 || profile >= e->plan.profiles || select < 0 || select > 2) return (db_dims){.n = -1};
	return db_to_dims(&e->plan.range[profile][i].shape[select]);
}
static size_t engine_memory(void *self) { return (size_t)((db_engine *)db_self(self, FL_CudaEngine_getDeviceMemorySize))->scratch; }
static int64_t engine_memory2(void *self) { return ((db_engine *)db_self(self, FL_CudaEngine_getDeviceMemorySizeV2))->scratch; }
static void *engine_inspector(void *self) {
	db_object *o = db_self_object(self, FL_CudaEngine_createEngineInspector);
	return db_public(db_new(FL_C_EngineInspector, o, false, o->data, NULL));
}

#if DOUBLE_MAJOR == 8
static void *engine_context(void *self) { return db_public(db_context(db_self_object(self, FL_CudaEngine_createExecutionContext), true)); }
#else
static void *engine_context(void *self, int32_t strategy) {
	db_object *o = db_self_object(self, FL_CudaEngine_createExecutionContext);
	if (strategy != db_v(FL_ExecutionContextAllocationStrategy_kSTATIC) && strategy != db_v(FL_ExecutionContextAllocationStrategy_kUSER_MANAGED))
		db_die("CudaEngine::createExecutionContext: strategy %d", strategy);
	return db_public(db_context(o, strategy == db_v(FL_ExecutionContextAllocationStrategy_kSTATIC)));
}
#endif
static void *engine_bare_context(void *self) { return db_public(db_context(db_self_object(self, FL_CudaEngine_createExecutionContextWithoutDeviceMemory), false)); }

static const char *inspector_information(void *self, int32_t format) {
	db_engine *e = db_self(self, FL_EngineInspector_getEngineInformation);
	if (format != db_v(FL_LayerInformationFormat_kJSON)) return "double: only JSON is to be had";
	if (e->inspected) return e->inspected;
	size_t room = 64, n = 0;
	for (int i = 0; i < e->graph->nodes; i++) room += strlen(e->graph->node[i].name) + strlen(e->graph->node[i].type) + 48;
	for (int i = 0; i < db_io_count(e); i++) room += strlen(db_io_name(e, i)) + 4;
	char *s = db_alloc(room);
	n += (size_t)sprintf(s + n, "{\"Layers\":[");
	for (int i = 0; i < e->graph->nodes; i++)
		n += (size_t)sprintf(s + n, "%s{\"Name\":\"%s\",\"LayerType\":\"%s\"}", i ? "," : "", e->graph->node[i].name, e->graph->node[i].type);
	n += (size_t)sprintf(s + n, "],\"Bindings\":[");
	for (int i = 0; i < db_io_count(e); i++) n += (size_t)sprintf(s + n, "%s\"%s\"", i ? "," : "", db_io_name(e, i));
	sprintf(s + n, "]}");
	return e->inspected = s;
}

bool db_driver_is_new_enough(void *logger) {
	int least = DOUBLE_MAJOR == 8 ? 11000 : DOUBLE_MAJOR == 10 ? 12000 : 13000;
	if (db_driver() >= least) return true;
	db_log(logger, FL_Severity_kERROR, "CUDA initialization failure with error: 35. Please check your CUDA installation: http://docs.nvidia.com/cuda");
	return false;
}

API void *createInferRuntime_INTERNAL(void *logger, int32_t version) {
	db_objects();
	if (!db_initialized()) db_die("createInferRuntime_INTERNAL before cuInit succeeded: a real library gives a pointer that is none");
	db_meet(logger, FL_Logger_getAPILanguage, FL_Logger_getInterfaceInfo, "ILogger");
	if (version != db_version()) {
		db_log(logger, FL_Severity_kERROR, "double runtime: made for version %d, this is %d", version, db_version());
		return NULL;
	}
	if (!db_driver_is_new_enough(logger)) return NULL;
	db_object *o = db_new(FL_C_Runtime, NULL, false, NULL, NULL);
	o->logger = logger;
	db_log(logger, FL_Severity_kINFO, "double runtime %s", db_version_text());
	return db_public(o);
}

const db_method db_engine_methods[] = {
	{FL_Runtime_deserializeCudaEngine, (void *)runtime_deserialize},
	{FL_Runtime_setDLACore, (void *)runtime_set_dla},
	{FL_Runtime_getNbDLACores, (void *)runtime_dla},
	{FL_CudaEngine_getNbIOTensors, (void *)engine_tensors},
	{FL_CudaEngine_getIOTensorName, (void *)engine_name},
	{FL_CudaEngine_getTensorShape, (void *)engine_shape},
	{FL_CudaEngine_getTensorDataType, (void *)engine_type},
	{FL_CudaEngine_getTensorIOMode, (void *)engine_mode},
	{FL_CudaEngine_getTensorFormat, (void *)engine_format},
	{FL_CudaEngine_getTensorLocation, (void *)engine_location},
	{FL_CudaEngine_getProfileShape, (void *)engine_profile},
	{FL_CudaEngine_createExecutionContext, (void *)engine_context},
	{FL_CudaEngine_createExecutionContextWithoutDeviceMemory, (void *)engine_bare_context},
	{FL_CudaEngine_getDeviceMemorySize, (void *)engine_memory},
	{FL_CudaEngine_getDeviceMemorySizeV2, (void *)engine_memory2},
	{FL_CudaEngine_createEngineInspector, (void *)engine_inspector},
	{FL_EngineInspector_getEngineInformation, (void *)inspector_information},
	{0, NULL},
};
