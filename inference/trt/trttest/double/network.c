// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for networks of libnvinfer and for the parser of libnvonnxparser that fills
// them from an ONNX file.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

typedef struct {
	db_object *network, *error;
	db_fault fault;
	int errors;
	char text[300];
} parser;

static void tensor_drop(void *data) {
	free(((db_tensor *)data)->name);
	free(data);
}

void db_network_drop(void *data);
void db_network_drop(void *data) {
	db_network *n = data;
	for (int i = 0; i < n->tensors; i++) db_end_owned(n->tensor[i]);
	for (int i = 0; i < n->layers; i++) db_end_owned(n->layer[i]);
	free(n->tensor);
	free(n->layer);
	db_graph_free(n->graph);
	free(n);
}

static db_object *tensor(db_object *network, const char *name, const db_shape *shape) {
	db_tensor *t = db_alloc(sizeof *t);
	t->name = db_strdup(name);
	t->shape = *shape;
	return db_new(FL_C_Tensor, network, true, t, tensor_drop);
}

static void fill(db_object *o, db_network *n, const db_shape *out) {
	const db_graph *g = n->graph;
	n->tensors = g->inputs + g->outputs;
	n->tensor = db_alloc((size_t)n->tensors * sizeof *n->tensor);
	for (int i = 0; i < g->inputs; i++) n->tensor[i] = tensor(o, g->value[g->in[i]].name, &g->value[g->in[i]].shape);
	for (int i = 0; i < g->outputs; i++) n->tensor[g->inputs + i] = tensor(o, g->value[g->out[i]].name, &out[i]);
	n->layers = g->nodes;
	n->layer = db_alloc((size_t)n->layers * sizeof *n->layer);
	for (int i = 0; i < g->nodes; i++) {
		db_layer *l = db_alloc(sizeof *l);
		l->node = &g->node[i];
		n->layer[i] = db_new(FL_C_Layer, o, true, l, free);
	}
}

static int32_t network_inputs(void *self) {
	const db_network *n = db_self(self, FL_NetworkDefinition_getNbInputs);
	return n->graph ? n->graph->inputs : 0;
}
static int32_t network_outputs(void *self) {
	const db_network *n = db_self(self, FL_NetworkDefinition_getNbOutputs);
	return n->graph ? n->graph->outputs : 0;
}
static int32_t network_layers(void *self) { return ((db_network *)db_self(self, FL_NetworkDefinition_getNbLayers))->layers; }
static void *network_input(void *self, int32_t i) {
	const db_network *n = db_self(self, FL_NetworkDefinition_getInput);
	return n->graph && i >= 0 && i < n->graph->inputs ? db_public(n->tensor[i]) : NULL;
}
static void *network_layer(void *self, int32_t i) {
	const db_network *n = db_self(self, FL_NetworkDefinition_getLayer);
	return i >= 0 && i < n->layers ? db_public(n->layer[i]) : NULL;
}
static const char *tensor_name(void *self) { return ((db_tensor *)db_self(self, FL_Tensor_getName))->name; }
static db_dims tensor_dims(void *self) { return db_to_dims(&((db_tensor *)db_self(self, FL_Tensor_getDimensions))->shape); }
static const char *layer_name(void *self) { return ((db_layer *)db_self(self, FL_Layer_getName))->node->name; }

static bool refuse(db_object *o, parser *p, const char *text, int node) {
	snprintf(p->text, sizeof p->text, "%s", text);
	p->fault.node = node;
	p->errors = 1;
	db_log(o->logger, FL_Severity_kERROR, "double parser: %s", text);
	return false;
}

static bool parser_parse(void *self, const void *onnx, size_t size, const char *path) {
	db_object *o = db_self_object(self, FL_Parser_parse);
	parser *p = o->data;
	db_network *n = p->network->data;
	db_shape out[DB_INPUTS];
	(void)path;
	if (!onnx && size) db_die("Parser::parse: NULL with %zu bytes", size);
	if (n->graph) db_die("Parser::parse: this network was filled before");
	if (DOUBLE_MAJOR == 8 && !(n->flags & 1u << db_v(FL_NetworkDefinitionCreationFlag_kEXPLICIT_BATCH)))
		return refuse(o, p, "This version of the ONNX parser only supports networks with an explicit batch dimension", -1);
	db_graph *g = db_graph_read(onnx, size, &p->fault);
	if (!g) return refuse(o, p, p->fault.text, p->fault.node);
	if (!db_outputs(g, out, &p->fault)) {
		refuse(o, p, p->fault.text, p->fault.node);
		db_graph_free(g);
		return false;
	}
	n->graph = g;
	n->onnx_size = size;
	n->parser = o;
	fill(p->network, n, out);
	db_log(o->logger, FL_Severity_kINFO, "double parser: %d nodes, opset %d", g->nodes, g->opset);
	return true;
}

static int parser_errors(void *self) { return ((parser *)db_self(self, FL_Parser_getNbErrors))->errors; }
static void *parser_error(void *self, int i) {
	db_object *o = db_self_object(self, FL_Parser_getError);
	parser *p = o->data;
	if (i < 0 || i >= p->errors) return NULL;
	if (!p->error) p->error = db_new(FL_C_ParserError, o, true, p, NULL);
	return db_plain(p->error);
}
static const char *error_desc(void *self) { return ((parser *)db_self(self, FL_ParserError_desc))->text; }
static int error_node(void *self) { return ((parser *)db_self(self, FL_ParserError_node))->fault.node; }

static void parser_drop(void *data) {
	parser *p = data;
	db_end_owned(p->error);
	free(p);
}

API int getNvOnnxParserVersion(void) { return db_version(); }

API void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
	db_objects();
	db_object *n = db_argument(network, FL_C_NetworkDefinition, FL_Parser_parse);
	db_meet(logger, FL_Logger_getAPILanguage, FL_Logger_getInterfaceInfo, "ILogger");
	if (version != db_version()) {
		db_log(logger, FL_Severity_kERROR, "double parser: made for version %d, this is %d", version, db_version());
		return NULL;
	}
	parser *p = db_alloc(sizeof *p);
	p->network = n;
	db_object *o = db_new(FL_C_Parser, n, false, p, parser_drop);
	o->logger = logger;
	return db_plain(o);
}

const db_method db_network_methods[] = {
	{FL_NetworkDefinition_getNbInputs, (void *)network_inputs},
	{FL_NetworkDefinition_getInput, (void *)network_input},
	{FL_NetworkDefinition_getNbOutputs, (void *)network_outputs},
	{FL_NetworkDefinition_getNbLayers, (void *)network_layers},
	{FL_NetworkDefinition_getLayer, (void *)network_layer},
	{FL_Tensor_getName, (void *)tensor_name},
	{FL_Tensor_getDimensions, (void *)tensor_dims},
	{FL_Layer_getName, (void *)layer_name},
	{FL_Parser_parse, (void *)parser_parse},
	{FL_Parser_getNbErrors, (void *)parser_errors},
	{FL_Parser_getError, (void *)parser_error},
	{FL_ParserError_desc, (void *)error_desc},
	{FL_ParserError_node, (void *)error_node},
	{0, NULL},
};
