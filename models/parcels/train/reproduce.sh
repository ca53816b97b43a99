#!/bin/bash
# Makes the parcels package again, from nothing but this repository:
#   models/parcels/train/reproduce.sh [FOLDER]
# Needs PyTorch (Debian: python3-torch python3-pil python3-venv); ONNX and ONNX
# Runtime are installed into a virtual environment. About 40 minutes on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../../.."
work=${1:-.cache/parcels}
mkdir -p "$work"
cross/need python3-torch python3-pil python3-venv
[ -x "$work/venv/bin/python" ] || { /usr/bin/python3 -m venv --system-site-packages "$work/venv"; "$work/venv/bin/pip" install -q onnx==1.16.2 onnxruntime==1.19.2; }
go build -o "$work/generate" ./models/parcels/train/generate
"$work/generate" -split train -n 3200 -out "$work/train" &
"$work/generate" -split calibration -n 120 -out "$work/calibration"
"$work/generate" -split test -n 500 -out "$work/test"
"$work/generate" -split test -n 516 -jpeg "$work/golden"
"$work/generate" -split gate -n 112 -labelled models/parcels/gate
wait
train=models/parcels/train
/usr/bin/python3 $train/train.py "$work" "$work" 12
/usr/bin/python3 $train/export.py "$work"
"$work/venv/bin/python" $train/quantize.py "$work" "$work"
"$work/venv/bin/python" $train/evaluate.py "$work" "$work"
"$work/venv/bin/python" $train/pack.py "$work" "$work" models/parcels
