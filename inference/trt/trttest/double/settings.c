// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Stands for nothing real: it steers the double by FULMAR_DOUBLE_* variables, keeps
// count of everything that has to be freed, and ends the process at a fault.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static db_settings now;
static long oom_count, sticky_count;
static db_thing *things;

static long number(const char *name, long otherwise) {
	char full[64];
	snprintf(full, sizeof full, "FULMAR_DOUBLE_%s", name);
	const char *v = getenv(full);
	return v && *v ? strtol(v, NULL, 10) : otherwise;
}

static void text(const char *name, char *to, size_t n) {
	char full[64];
	snprintf(full, sizeof full, "FULMAR_DOUBLE_%s", name);
	const char *v = getenv(full);
	snprintf(to, n, "%s", v ? v : "");
}

void db_reread(void) {
	db_settings s = {0};
	text("SHIFT", s.shift, sizeof s.shift);
	s.oom = number("OOM", 0);
	s.sticky = number("STICKY", 0);
	s.driver = number("DRIVER", 0);
	s.integrated = number("INTEGRATED", 0);
	s.dla = number("DLA", 0);
	s.buildms = number("BUILDMS", 0);
	s.nodriver = number("NODRIVER", 0);
	s.failbuild = number("FAILBUILD", 0);
	s.cc = number("CC", 87);
	s.memory = number("MEMORY", 8192);
	s.lazy = number("LAZY", 0);
	text("LIVE_AT_EXIT", s.at_exit, sizeof s.at_exit);
	pthread_mutex_lock(&mu);
	if (s.oom != now.oom) oom_count = 0;
	if (s.sticky != now.sticky) sticky_count = 0;
	// Written only where it changes: other threads read it without the lock.
	if (memcmp(&s, &now, sizeof s) != 0) now = s;
	pthread_mutex_unlock(&mu);
}

const db_settings *db_get(void) { return &now; }

bool db_oom_now(void) {
	pthread_mutex_lock(&mu);
	bool hit = now.oom && ++oom_count == now.oom;
	pthread_mutex_unlock(&mu);
	return hit;
}

bool db_sticky_now(void) {
	pthread_mutex_lock(&mu);
	bool hit = now.sticky && ++sticky_count == now.sticky;
	pthread_mutex_unlock(&mu);
	return hit;
}

_Noreturn void db_die(const char *format, ...) {
	char line[600];
	va_list a;
	va_start(a, format);
	vsnprintf(line, sizeof line, format, a);
	va_end(a);
	fprintf(stderr, "double: %s\n", line);
	fflush(stderr);
	abort();
}

void *db_alloc(size_t n) {
	void *p = calloc(1, n ? n : 1);
	if (!p) db_die("the host has no %zu bytes left for the double itself", n);
	return p;
}

char *db_strdup(const char *s) {
	char *p = db_alloc(strlen(s) + 1);
	memcpy(p, s, strlen(s));
	return p;
}

static int live(void) {
	int n = 0;
	for (db_thing *t = things; t; t = t->next) n += t->alive;
	return n;
}

static const char *leaks(void) {
	static char names[4000];
	size_t at = 0;
	names[0] = 0;
	for (db_thing *t = things; t && at < sizeof names - 200; t = t->next)
		if (t->alive) at += (size_t)snprintf(names + at, sizeof names - at, "%s%s (%s)", at ? ", " : "", t->kind, t->note);
	return names;
}

// tell writes how many things live into the file that LIVE_AT_EXIT names, at each birth
// and death: a Go program ends without running a library's destructors.
static void tell(void) {
	if (!*now.at_exit) return;
	FILE *f = fopen(now.at_exit, "w");
	if (!f) return;
	fprintf(f, "live %d: %s\n", live(), leaks());
	fclose(f);
}

void db_born(db_thing *t, const char *kind, const char *format, ...) {
	va_list a;
	va_start(a, format);
	vsnprintf(t->note, sizeof t->note, format, a);
	va_end(a);
	t->magic = DB_THING;
	t->kind = kind;
	t->alive = true;
	pthread_mutex_lock(&mu);
	t->next = things;
	things = t;
	tell();
	pthread_mutex_unlock(&mu);
}

void db_use(const db_thing *t, const char *kind, const char *doing) {
	if (!t) db_die("%s: NULL for a %s", doing, kind);
	if (t->magic != DB_THING) db_die("%s: what is given is no %s", doing, kind);
	if (strcmp(t->kind, kind) != 0) db_die("%s: a %s is given for a %s", doing, t->kind, kind);
	if (!t->alive) db_die("%s: this %s (%s) was freed before", doing, kind, t->note);
}

void db_dead(db_thing *t, const char *kind, const char *doing) {
	db_use(t, kind, doing);
	pthread_mutex_lock(&mu);
	t->alive = false;
	tell();
	pthread_mutex_unlock(&mu);
}

API int fl_double_live(void) {
	pthread_mutex_lock(&mu);
	int n = live();
	pthread_mutex_unlock(&mu);
	return n;
}

// fl_double_leaks names what lives, newest first, as "kind (note)" with ", " between.
API const char *fl_double_leaks(void) {
	pthread_mutex_lock(&mu);
	const char *names = leaks();
	pthread_mutex_unlock(&mu);
	return names;
}

__attribute__((constructor)) static void loaded(void) {
	db_reread();
	tell();
}
