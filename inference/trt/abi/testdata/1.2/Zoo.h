// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

#define NV_TENSORRT_MAJOR 1
#define NV_TENSORRT_MINOR 2
#define NV_TENSORRT_PATCH 0
#include "../zoo.h"
