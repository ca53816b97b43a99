// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Objects of ours that the libraries call (logger, progress monitor, calibrator), and
// the mail box that keeps what they say.
#define _GNU_SOURCE // strcasestr
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inner.h"

void fl_mail_put(fl_lib *l, int severity, const char *text) {
	mail *m = &l->mail;
	if (!text) text = "(no text)";
	bool bad = severity <= fl_values[FL_M11][FL_Severity_kERROR];
	if (severity > atomic_load(&m->level)) return;
	size_t n = strnlen(text, LOG_BYTES - 1);
	char *line = malloc(n + 1);
	if (line) {
		memcpy(line, text, n);
		line[n] = 0;
		for (char *p = line; *p; p++)
			if (*p == '\n' || *p == '\r' || *p == '\t') *p = ' ';
	}
	pthread_mutex_lock(&m->mu);
	if (bad) {
		m->errors++;
		snprintf(m->last_error, sizeof m->last_error, "%s", line ? line : "");
	}
	if (m->count == LOG_LINES) {
		free(m->line[m->head]);
		m->line[m->head] = NULL;
		m->head = (m->head + 1) % LOG_LINES;
		m->count--;
		m->lost++;
	}
	if (line) {
		uint32_t at = (m->head + m->count++) % LOG_LINES;
		m->line[at] = line;
		m->severity[at] = (int8_t)severity;
	} else {
		m->lost++;
	}
	pthread_mutex_unlock(&m->mu);
}

int fl_log_take(fl_lib *l, char *out, size_t n, uint64_t *lost) {
	mail *m = &l->mail;
	int severity = -1;
	pthread_mutex_lock(&m->mu);
	*lost = m->lost;
	m->lost = 0;
	if (m->count) {
		severity = m->severity[m->head];
		snprintf(out, n, "%s", m->line[m->head]);
		free(m->line[m->head]);
		m->line[m->head] = NULL;
		m->head = (m->head + 1) % LOG_LINES;
		m->count--;
	}
	pthread_mutex_unlock(&m->mu);
	return severity;
}

void fl_log_level(fl_lib *l, int32_t severity) { atomic_store(&l->mail.level, severity); }

uint64_t fl_errors(fl_lib *l) {
	pthread_mutex_lock(&l->mail.mu);
	uint64_t n = l->mail.errors;
	pthread_mutex_unlock(&l->mail.mu);
	return n;
}

void fl_last_error(fl_lib *l, uint64_t since, char *out, size_t n) {
	pthread_mutex_lock(&l->mail.mu);
	snprintf(out, n, "%s", l->mail.errors > since ? l->mail.last_error : "");
	pthread_mutex_unlock(&l->mail.mu);
}

bool fl_about_memory(const char *line) {
	// "Error Code 2: OutOfMemory", "Cuda Runtime (out of memory)", "could not be allocated"
	return strcasestr(line, "out of memory") || strcasestr(line, "OutOfMemory") || strcasestr(line, "could not be allocated");
}

// What getInterfaceInfo gives, by value: two registers on the machines we know.
typedef struct {
	const char *kind;
	int32_t major, minor;
} interface_info;

static void nothing(void *self) { (void)self; } // destructors: our objects are not theirs
static int32_t language(void *self) {
	(void)self;
	return 0; // APILanguage::kCPP
}

static void logger_log(void *self, int32_t severity, const char *text) { fl_mail_put(((object *)self)->lib, severity, text); }
static interface_info logger_info(void *self) {
	(void)self;
	return (interface_info){"ILogger", 1, 0};
}

// prepare fills the table of an object with a call that does nothing, for the
// destructors, and with what every versioned interface has.
static void prepare(fl_lib *l, object *o, enum fl_method language_slot, enum fl_method info_slot, interface_info (*info)(void *)) {
	o->lib = l;
	o->vtable = o->vt;
	for (size_t i = 0; i < sizeof o->vt / sizeof *o->vt; i++) o->vt[i] = (void *)nothing;
	if (fl_slots[l->major][language_slot] >= 0) o->vt[fl_slots[l->major][language_slot]] = (void *)language;
	if (fl_slots[l->major][info_slot] >= 0) o->vt[fl_slots[l->major][info_slot]] = (void *)info;
}

void fl_logger_init(fl_lib *l) {
	prepare(l, &l->logger, FL_Logger_getAPILanguage, FL_Logger_getInterfaceInfo, logger_info);
	l->logger.vt[fl_slots[l->major][FL_Logger_log]] = (void *)logger_log;
}

static void lock(fl_watch *w) {
	while (__atomic_exchange_n(&w->lock, 1, __ATOMIC_ACQUIRE)) {}
}
static void unlock(fl_watch *w) { __atomic_store_n(&w->lock, 0, __ATOMIC_RELEASE); }

// The library nests phases; the outermost one that has steps is what people are told.
static void phase_start(void *self, const char *phase, const char *parent, int32_t steps) {
	fl_watch *w = ((object *)self)->watch;
	if (parent && *parent) return;
	lock(w);
	snprintf(w->phase, sizeof w->phase, "%s", phase ? phase : "");
	w->done = 0;
	w->of = steps;
	unlock(w);
}
static bool step_complete(void *self, const char *phase, int32_t step) {
	fl_watch *w = ((object *)self)->watch;
	lock(w);
	if (phase && strcmp(phase, w->phase) == 0) w->done = step + 1;
	unlock(w);
	return !__atomic_load_n(&w->cancel, __ATOMIC_ACQUIRE);
}
static void phase_finish(void *self, const char *phase) {
	fl_watch *w = ((object *)self)->watch;
	lock(w);
	if (phase && strcmp(phase, w->phase) == 0) w->done = w->of;
	unlock(w);
}
static interface_info monitor_info(void *self) {
	(void)self;
	return (interface_info){"IProgressMonitor", 1, 0};
}

void fl_monitor_init(fl_lib *l, object *o, fl_watch *w) {
	prepare(l, o, FL_ProgressMonitor_getAPILanguage, FL_ProgressMonitor_getInterfaceInfo, monitor_info);
	o->watch = w;
	o->vt[fl_slots[l->major][FL_ProgressMonitor_phaseStart]] = (void *)phase_start;
	o->vt[fl_slots[l->major][FL_ProgressMonitor_stepComplete]] = (void *)step_complete;
	o->vt[fl_slots[l->major][FL_ProgressMonitor_phaseFinish]] = (void *)phase_finish;
}

void fl_watch_read(fl_watch *w, int32_t *done, int32_t *of, char *phase, size_t n) {
	lock(w);
	*done = w->done;
	*of = w->of;
	snprintf(phase, n, "%s", w->phase);
	unlock(w);
}

void fl_watch_cancel(fl_watch *w) { __atomic_store_n(&w->cancel, 1, __ATOMIC_RELEASE); }

// The calibrator has nothing to measure: it hands over a cache that was derived from
// the Q/DQ scales of the network.
static int32_t calibration_algorithm(void *self) { return fl_v(((object *)self)->lib, FL_CalibrationAlgoType_kENTROPY_CALIBRATION_2); }
static int32_t calibration_batch_size(void *self) {
	(void)self;
	return 1;
}
static bool calibration_batch(void *self, void **bindings, const char **names, int32_t n) {
	(void)self, (void)bindings, (void)names, (void)n;
	return false;
}
static const void *calibration_read(void *self, size_t *size) {
	object *o = self;
	*size = o->cache_size;
	return o->cache;
}
static void calibration_write(void *self, const void *cache, size_t size) { (void)self, (void)cache, (void)size; }
static interface_info calibration_info(void *self) {
	(void)self;
	return (interface_info){"IInt8EntropyCalibrator2", 1, 0};
}

void fl_calibrator_init(fl_lib *l, object *o, const void *cache, size_t size) {
	prepare(l, o, FL_Int8Calibrator_getAPILanguage, FL_Int8Calibrator_getInterfaceInfo, calibration_info);
	o->cache = cache;
	o->cache_size = size;
	const int16_t *s = fl_slots[l->major];
	o->vt[s[FL_Int8Calibrator_getAlgorithm]] = (void *)calibration_algorithm;
	o->vt[s[FL_Int8Calibrator_getBatchSize]] = (void *)calibration_batch_size;
	o->vt[s[FL_Int8Calibrator_getBatch]] = (void *)calibration_batch;
	o->vt[s[FL_Int8Calibrator_readCalibrationCache]] = (void *)calibration_read;
	o->vt[s[FL_Int8Calibrator_writeCalibrationCache]] = (void *)calibration_write;
}
