# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
"""Puts the model package together: pack.py DATA OUT PACKAGE

Copies the networks, runs both on the golden pictures (DATA/golden/*.jpg) with the
preprocessing that model.yaml pins, writes what they must find, and model.yaml with
the hashes.
"""
import glob, hashlib, json, os, shutil, sys
import numpy as np
import onnxruntime as ort
from PIL import Image
from evaluate import H, W, decode

# mAP50 on the package's labelled pictures, from TestGateOfParcels in inference/model.
# Measured on 2026-11-26 with ONNX Runtime 1.30.0; another training wants it again.
CARD = {"fp32": 0.9157, "int8": 0.9206}
YAML = """# The parcels detector; CARD.md tells the rest. Written by train/pack.py.
name: parcels
version: "1"
task: detect
input:
  name: images
  shape: [1, 3, %d, %d]
  layout: nchw
  dtype: float32
  color: rgb
  scale: 0.00392156862745098
  mean: [0, 0, 0]
  std: [1, 1, 1]
  resize: {mode: letterbox, filter: bilinear, anchor: top-left, pad: 114}
head: {family: yolox, strides: [8, 16]}
labels: [parcel, damaged, label]
label_offset: 0
thresholds: {score: 0.4, nms_iou: 0.5, max_detections: 100}
gate:
  pictures: gate/
  metric: map50
  card: {fp32: %s, int8: %s}
  max_drop: 0.02
card: CARD.md
variants:
%sgolden:
%s"""


def main():
    data, out, package = sys.argv[1:4]
    os.makedirs(package + "/golden", exist_ok=True)
    variants, golden, sessions = "", "", {}
    for v in ("int8", "fp32"):
        name = "parcels_%s.onnx" % v
        shutil.copy(out + "/" + name, package + "/" + name)
        digest = hashlib.sha256(open(package + "/" + name, "rb").read()).hexdigest()
        variants += "  - {name: %s, file: %s, precision: %s, sha256: %s}\n" % (v, name, v, digest)
        sessions[v] = ort.InferenceSession(package + "/" + name, providers=["CPUExecutionProvider"])
    for path in sorted(glob.glob(data + "/golden/*.jpg")):
        name = os.path.basename(path)
        shutil.copy(path, package + "/golden/" + name)
        x = np.asarray(Image.open(path).convert("RGB"), np.float32)
        x = x.reshape(H, 2, W, 2, 3).mean((1, 3)).transpose(2, 0, 1)[None] / 255
        boxes = [b for b in decode(sessions["fp32"].run(None, {"images": np.ascontiguousarray(x, np.float32)})[0][0], nms=0.5) if b[4] >= 0.4]
        rows = [{"class": int(b[5]), "score": round(float(b[4]), 4), "box": [round(float(k), 2) for k in b[:4]]} for b in boxes]
        with open(package + "/golden/" + name[:-4] + ".json", "w") as f:
            json.dump({"boxes": rows}, f, indent=1)
            f.write("\n")
        golden += "  - {image: golden/%s, expected: golden/%s.json}\n" % (name, name[:-4])
    with open(package + "/model.yaml", "w") as f:
        f.write(YAML % (H, W, CARD["fp32"], CARD["int8"], variants, golden))


if __name__ == "__main__":
    main()
