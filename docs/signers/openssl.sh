#!/bin/sh
# An external signer for fulmar: a key file and openssl (3.0 or newer).
#
#   exec:/path/to/openssl.sh /path/to/key.pem
#
# One question comes on standard input, one answer goes to standard output, as
# README.md beside this file says.
set -eu
key=$1
umask 077
IFS= read -r question
field() { printf '%s' "$question" | sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

case $(field op) in
public)
  public=$(openssl pkey -in "$key" -pubout -outform DER | base64 -w 0)
  printf '{"v":1,"public":"%s"}\n' "$public"
  ;;
sign)
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  field data | base64 -d >"$tmp/data"
  case $(field hash) in
  sha256) openssl pkeyutl -sign -inkey "$key" -pkeyopt digest:sha256 -in "$tmp/data" -out "$tmp/sig" ;;
  none) openssl pkeyutl -sign -inkey "$key" -rawin -in "$tmp/data" -out "$tmp/sig" ;;
  *) echo "a hash that is not known here" >&2 && exit 1 ;;
  esac
  printf '{"v":1,"signature":"%s"}\n' "$(base64 -w 0 "$tmp/sig")"
  ;;
*)
  printf '{"v":1,"error":"an operation that is not known here"}\n'
  ;;
esac
