// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gpio drives one line of a GPIO chip through the kernel's character device, in
// the second version of its interface (Linux 5.10, include/uapi/linux/gpio.h).
//
// The line is asked for as it is, so that nothing moves before the first set, and made an
// output together with its value, so that there is no moment between. It is kept open:
// who closes a line gives it back to the kernel, and what it does then is up to the chip.
package gpio
