// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for how C++ lays out TensorRT's objects: vtables with our methods in the slots
// of this major, and a trap in every other slot.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

enum { SLOTS = 100 };
#define PUBLIC_MAGIC 0x64626c5f7075626cULL
#define IMPL_MAGIC 0x64626c5f696d706cULL

static void *tables[FL_CLASSES][SLOTS], *publics[FL_CLASSES][SLOTS];
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;

static db_object *objects; // all there ever were
static db_object *known(const void *p, bool *public) {
	pthread_mutex_lock(&mu);
	db_object *o = objects;
	while (o && p != o && p != &o->inner) o = o->next;
	pthread_mutex_unlock(&mu);
	*public = p == o;
	return o;
}

// trapped names the object. A method that returns a large struct has this as its second
// argument on amd64.
static _Noreturn void trapped(const void *self, const void *second, int slot) {
	bool public;
	const db_object *o = known(self, &public);
	if (!o) o = known(second, &public);
	if (!o) db_die("slot %d was called with a this that is no object", slot);
	if (public) db_die("%s public slot %d is not implemented: methods are in the vtable of the implementation", fl_class_names[o->class], slot);
	db_die("%s slot %d is not implemented", fl_class_names[o->class], slot);
}

#define TRAP(n) static void trap##n(const void *self, const void *second) { trapped(self, second, n); }
#define TEN(X, t) X(t##0) X(t##1) X(t##2) X(t##3) X(t##4) X(t##5) X(t##6) X(t##7) X(t##8) X(t##9)
#define ALL(X) TEN(X, ) TEN(X, 1) TEN(X, 2) TEN(X, 3) TEN(X, 4) TEN(X, 5) TEN(X, 6) TEN(X, 7) TEN(X, 8) TEN(X, 9)
ALL(TRAP)
#define NAME(n) (void *)trap##n,
static void *const traps[SLOTS] = {ALL(NAME)};

static bool made_by_program(enum fl_class c) { return c == FL_C_Logger || c == FL_C_ProgressMonitor || c == FL_C_Int8Calibrator; }

// least is this library's version as fl_since has it.
static int32_t least(void) {
	int32_t v = db_version();
	if (DOUBLE_RTX) return 110000; // RTX 1.x has what 11 has
	return DOUBLE_MAJOR == 8 ? v / 1000 * 10000 + v % 1000 / 100 * 100 + v % 100 : v;
}

static bool has(enum fl_method m) { return db_slot(m) >= 0 && fl_since[DB_MAJOR][m] <= least(); }

static void *function_of(enum fl_method m) {
	const db_method *all[] = {db_network_methods, db_build_methods, db_config_methods, db_engine_methods, db_context_methods};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		for (const db_method *k = all[i]; k->function; k++)
			if (k->method == m) return k->function;
	return m == FL_Parser_delete ? (void *)db_delete_plain : NULL;
}

static void delete_public(void *public);

static void make(void) {
	for (int c = 0; c < FL_CLASSES; c++)
		for (int s = 0; s < SLOTS; s++) tables[c][s] = publics[c][s] = traps[s];
	for (int c = 0; c < FL_CLASSES; c++) publics[c][1] = (void *)delete_public; // also of what is not the program's to delete, to say so
	for (int c = 0; c < FL_CLASSES; c++)
		if (fl_public_delete[DB_MAJOR][c] >= 0) publics[c][fl_public_delete[DB_MAJOR][c]] = (void *)delete_public;
	for (int m = 0; m < FL_METHODS; m++) {
		if (!has(m) || made_by_program(fl_method_class[m])) continue;
		void *f = function_of(m);
		if (!f) db_die("the double lacks %s", fl_method_names[m]);
		tables[fl_method_class[m]][db_slot(m)] = f;
	}
	for (int m = 0; m < FL_METHODS; m++) {
		if (strcmp(fl_method_names[m], db_get()->shift) != 0 || !has(m) || made_by_program(fl_method_class[m])) continue;
		void **table = tables[fl_method_class[m]];
		int s = db_slot(m);
		table[s + 1] = table[s];
		table[s] = traps[s];
	}
}

void db_objects(void) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	db_reread();
	pthread_once(&once, make);
}

db_object *db_new(enum fl_class class, db_object *parent, bool owned, void *data, void (*drop)(void *)) {
	db_object *o = db_alloc(sizeof *o);
	o->vtable = publics[class];
	o->impl = &o->inner;
	o->magic = PUBLIC_MAGIC;
	o->inner = (db_impl){tables[class], IMPL_MAGIC, o};
	o->class = class;
	o->owned = owned;
	o->parent = parent;
	o->data = data;
	o->drop = drop;
	if (parent) o->logger = parent->logger;
	pthread_mutex_lock(&mu);
	o->next = objects;
	objects = o;
	pthread_mutex_unlock(&mu);
	if (owned) {
		o->thing.magic = DB_THING;
		o->thing.kind = fl_class_names[class];
		o->thing.alive = true;
		return o;
	}
	if (parent) atomic_fetch_add(&parent->children, 1);
	db_born(&o->thing, fl_class_names[class], "made by %s", parent ? fl_class_names[parent->class] : "the library");
	return o;
}

static void end(db_object *o) {
	const char *name = fl_class_names[o->class];
	char doing[80];
	snprintf(doing, sizeof doing, "delete of %s", name);
	if (o->owned) db_die("delete of %s, which belongs to its %s", name, fl_class_names[o->parent->class]);
	if (!o->thing.alive) db_die("delete of %s, which was deleted before", name);
	int n = atomic_load(&o->children);
	if (n) db_die("delete of %s while %d objects made from it live", name, n);
	db_dead(&o->thing, name, doing);
	if (o->parent) atomic_fetch_sub(&o->parent->children, 1);
	if (o->drop) o->drop(o->data);
}

static void delete_public(void *public) {
	db_object *o = public;
	if (!o || o->magic != PUBLIC_MAGIC) db_die("delete of what is no public object");
	end(o);
}

void db_delete_plain(void *self) {
	db_impl *i = self;
	if (!i || i->magic != IMPL_MAGIC) db_die("delete of what is no object");
	end(i->object);
}

void db_end_owned(db_object *o) {
	if (!o) return;
	o->thing.alive = false;
	if (o->drop) o->drop(o->data);
}

db_object *db_self_object(void *self, enum fl_method m) {
	const db_impl *i = self;
	enum fl_class class = (enum fl_class)fl_method_class[m];
	if (!i) db_die("%s: this is NULL", fl_method_names[m]);
	if (i->magic != IMPL_MAGIC) db_die("%s: this is no implementation", fl_method_names[m]);
	db_object *o = i->object;
	if (o->class != class) db_die("%s: this is a %s", fl_method_names[m], fl_class_names[o->class]);
	if (!o->thing.alive) db_die("%s: this was deleted before", fl_method_names[m]);
	return o;
}

void *db_self(void *self, enum fl_method m) { return db_self_object(self, m)->data; }

db_object *db_argument(const void *public, enum fl_class class, enum fl_method m) {
	db_object *o = (db_object *)public;
	if (!o) db_die("%s: the %s is NULL", fl_method_names[m], fl_class_names[class]);
	if (o->magic != PUBLIC_MAGIC) db_die("%s: what is given is no %s", fl_method_names[m], fl_class_names[class]);
	if (o->class != class) db_die("%s: a %s is given for a %s", fl_method_names[m], fl_class_names[o->class], fl_class_names[class]);
	if (!o->thing.alive) db_die("%s: the %s was deleted before", fl_method_names[m], fl_class_names[class]);
	return o;
}

void *db_ours(void *object, enum fl_method m) {
	int shift = strcmp(db_get()->shift, fl_method_names[m]) == 0;
	return (*(void ***)object)[db_slot(m) + shift];
}

void db_log(void *logger, enum fl_value severity, const char *format, ...) {
	char text[600];
	va_list a;
	va_start(a, format);
	vsnprintf(text, sizeof text, format, a);
	va_end(a);
	((void (*)(void *, int32_t, const char *))db_ours(logger, FL_Logger_log))(logger, db_v(severity), text);
}

typedef struct { const char *kind; int32_t major, minor; } interface_info;

void db_meet(void *object, enum fl_method language, enum fl_method info, const char *kind) {
	if (!object) db_die("%s: NULL is given", kind);
	if (has(language)) {
		int32_t v = ((int32_t(*)(void *))db_ours(object, language))(object);
		if (v != db_v(FL_APILanguage_kCPP)) db_die("%s::getAPILanguage gives %d", kind, v);
	}
	if (has(info)) {
		interface_info v = ((interface_info(*)(void *))db_ours(object, info))(object);
		if (!v.kind || strcmp(v.kind, kind) != 0 || v.major != 1 || v.minor != 0) db_die("%s::getInterfaceInfo gives %s %d.%d", kind, v.kind ? v.kind : "NULL", v.major, v.minor);
	}
}

db_dims db_to_dims(const db_shape *s) {
	db_dims d = {.n = s->n};
	for (int i = 0; i < s->n; i++) d.d[i] = (__typeof__(d.d[0]))s->d[i];
	return d;
}

bool db_from_dims(const db_dims *d, db_shape *out) {
	if (!d || d->n < 0 || d->n > DB_DIMS) return false;
	*out = (db_shape){.n = d->n};
	for (int i = 0; i < d->n; i++) out->d[i] = d->d[i];
	return true;
}

int32_t db_version(void) { return DOUBLE_VERSION; }

const char *db_version_text(void) {
	static char text[32];
	int v = DOUBLE_VERSION, k = DOUBLE_MAJOR == 8 ? 1000 : 10000;
	pthread_mutex_lock(&mu);
	snprintf(text, sizeof text, "%d.%d.%d", v / k, v % k / 100, v % 100); // 8601 is 8.6.1
	pthread_mutex_unlock(&mu);
	return text;
}

API int32_t getInferLibVersion(void) { return DOUBLE_VERSION; }
#if DOUBLE_MAJOR != 8
API int32_t getInferLibMajorVersion(void) { return DOUBLE_VERSION / 10000; }
API int32_t getInferLibMinorVersion(void) { return DOUBLE_VERSION / 100 % 100; }
API int32_t getInferLibPatchVersion(void) { return DOUBLE_VERSION % 100; }
API int32_t getInferLibBuildVersion(void) { return 0; }
#endif
