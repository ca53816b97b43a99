#!/bin/sh
# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
#
# A program of a site, for tests: keeps what it is given as files in one folder.
set -eu
S=@STATE@ RESTART=@RESTART@
verb=$1 token=${2-}
in=$(cat)

field() { printf %s "$in" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
has() { cat "$S/$1" 2>/dev/null || true; }
put() {
	printf %s "$2" >"$S/.$1.new"
	mv "$S/.$1.new" "$S/$1"
}
fail() {
	echo "$1" >&2
	exit "${2:-1}"
}

current=$(has current)
case $verb in
running) printf '{"version":"%s"}' "${current%-*}" ;;
stage)
	[ ! -e "$S/full" ] || fail "no room for $token" 28
	mkdir -p "$S/staged"
	cp "$(field file)" "$S/staged/.new"
	mv "$S/staged/.new" "$S/staged/$token"
	[ "$(has fell)" != "$token" ] || rm "$S/fell"
	;;
switch)
	[ -e "$S/staged/$token" ] || fail "$token is not staged"
	if [ "$current" != "$token" ]; then
		[ -e "$S/trial" ] || put previous "$current"
		put trial 1
		put current "$token"
	fi
	printf '{"restart":"%s"}' "$RESTART"
	;;
look)
	if [ "$current" = "$token" ] && [ -e "$S/trial" ]; then
		echo '{"standing":"on-trial"}'
	elif [ "$current" = "$token" ]; then
		echo '{"standing":"in-force"}'
	elif [ "$(has fell)" = "$token" ]; then
		printf '{"standing":"fallen","why":"%s"}' "$(has why)"
	else
		echo '{"standing":"not-yet"}'
	fi
	;;
confirm)
	[ "$current" = "$token" ] || fail "$token is not in force"
	rm -f "$S/trial"
	;;
back)
	if [ "$current" = "$token" ]; then
		put why "$(field why)"
		put fell "$token"
		put current "$(has previous)"
		rm -f "$S/trial"
		printf '{"restart":"%s"}' "$RESTART"
	fi
	;;
restart)
	[ "$RESTART" = machine ] || fail "this is not mine to do"
	put restarted "$(field why)"
	;;
sweep)
	for f in "$S"/staged/*; do
		name=${f##*/}
		case "$current $(has previous) $in" in
		*"$name"*) ;;
		*) rm "$f" ;;
		esac
	done
	;;
space) [ -e "$S/full" ] && echo '{"need":1000,"free":10}' || echo '{"need":1000,"free":5000}' ;;
*) fail "verb $verb is unknown" 2 ;;
esac
