#!/bin/sh
# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
# Puts Debian's kernel for arm64 at $1, from the mirror that this machine itself uses.
# apt's own folders are used, so that the machine's are left as they are.
set -eu
to=$1
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
cat >"$apt/conf" <<END
APT::Architecture "arm64"; APT::Architectures { "arm64"; };
Dir::State "$apt"; Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status"; Dir::Cache "$apt/cache";
Acquire::Languages "none"; APT::Sandbox::User "root";
END
export APT_CONFIG="$apt/conf"
apt-get update -qq
name=$(apt-cache depends linux-image-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
(cd "$apt" && apt-get download -qq "$name")
mkdir "$apt/x"
dpkg-deb -x "$apt"/linux-image-*.deb "$apt/x"
mkdir -p "$(dirname "$to")"
cp "$apt"/x/boot/vmlinuz-* "$to.$$"
mv "$to.$$" "$to"
