#!/bin/sh
# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
#
# nvbootctrl of a board that is a folder: reads and writes the variables there.
V=@ROOT@/sys/firmware/efi/efivars
G=781e084c-a330-417c-b678-38e696380cb9
byte() { od -An -tu1 -j4 -N1 "$V/$1-$G" 2>/dev/null | tr -d ' '; }
name() { [ "$1" = 0 ] && echo A || echo B; }
status() { [ "$(byte RootfsStatusSlot$1)" = 255 ] && echo unbootable || echo normal; }
current=$(byte BootChainFwCurrent)
active=$(byte BootChainFwNext)
active=${active:-$current}
[ ! -e @ROOT@/broken ] || { echo "Error: can not open /dev/mem" >&2; exit 1; }
case "$*" in
"-t rootfs dump-slots-info")
	echo "Current rootfs slot: $(name "$current")"
	echo "Active rootfs slot: $(name "$active")"
	echo "num_slots: 2"
	echo "slot: 0,             retry_count: $(byte RootfsRetryCountA),             status: $(status A)"
	echo "slot: 1,             retry_count: $(byte RootfsRetryCountB),             status: $(status B)"
	;;
dump-slots-info)
	echo "Current version: 36.4.3"
	echo "Capsule update status: $(cat @ROOT@/capsule-status)"
	echo "Current bootloader slot: $(name "$current")"
	;;
"set-active-boot-slot 0" | "set-active-boot-slot 1")
	# A/B off: says nothing and does nothing.
	[ "$(byte RootfsRedundancyLevel)" = 1 ] && [ ! -e @ROOT@/deaf ] || exit 0
	printf '\007\000\000\000\00'"${2}"'\000\000\000' >"$V/BootChainFwNext-$G"
	;;
*)
	echo "Error: unknown command" >&2
	exit 1
	;;
esac
