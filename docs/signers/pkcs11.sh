#!/bin/sh
# An external signer for fulmar: a P-256 key in an HSM, by pkcs11-tool (OpenSC). Tried
# with SoftHSM; another HSM has another MODULE.
#
#   exec:/path/to/pkcs11.sh MODULE TOKEN LABEL PINFILE
#
# MODULE is the HSM's PKCS #11 library, TOKEN the token's label, LABEL the key's, and
# PINFILE a file with the PIN that its owner alone may read.
set -eu
module=$1 token=$2 label=$3 pinfile=$4
umask 077
IFS= read -r question
field() { printf '%s' "$question" | sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

case $(field op) in
public)
  pkcs11-tool --module "$module" --token-label "$token" --read-object --type pubkey --label "$label" --output-file "$tmp/public" >/dev/null
  printf '{"v":1,"public":"%s"}\n' "$(base64 -w 0 "$tmp/public")"
  ;;
sign)
  if [ "$(field hash)" != sha256 ]; then
    printf '{"v":1,"error":"this key signs SHA-256 digests only"}\n'
    exit 0
  fi
  field data | base64 -d >"$tmp/data"
  # The PIN goes by the environment: arguments can be seen by all users.
  FULMAR_PIN=$(cat "$pinfile") pkcs11-tool --module "$module" --token-label "$token" --login --pin env:FULMAR_PIN \
    --sign --mechanism ECDSA --signature-format openssl --label "$label" --input-file "$tmp/data" --output-file "$tmp/sig" >/dev/null
  printf '{"v":1,"signature":"%s"}\n' "$(base64 -w 0 "$tmp/sig")"
  ;;
*)
  printf '{"v":1,"error":"an operation that is not known here"}\n'
  ;;
esac
