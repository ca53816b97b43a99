// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

#ifndef FULMAR_DEVICE_H
#define FULMAR_DEVICE_H
#include <stddef.h>

#include "kernel.h"

// device_run runs a kernel on the device over copies of source and destination, and
// device_fault the one that faults. Both return the driver's code.
int device_run(const char *name, fl_prep_params *p, unsigned *grid, unsigned *block, char *src, size_t at, size_t size, char *dst, size_t room);
int device_fault(void);
#endif
