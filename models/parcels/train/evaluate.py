# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
"""Judges parcels_fp32.onnx and parcels_int8.onnx on DATA/test.

    evaluate.py DATA OUT [N]

Average precision with 101 recall points and at most 100 boxes a picture, as COCO
counts it, over IoU 0.5 (mAP50) and 0.5 to 0.95 (mAP50-95). Writes OUT/metrics.json.
"""
import json, sys, time
import numpy as np
import onnxruntime as ort

W, H, NC = 320, 192, 3
NAMES = ["parcel", "damaged", "label"]
SCORE, NMS = 0.01, 0.5


def decode(out, nms=NMS):
    rows, at = [], 0
    for s in (8, 16):
        gh, gw = H // s, W // s
        t = out[at:at + gh * gw].astype(np.float64)
        at += gh * gw
        gy, gx = np.divmod(np.arange(gh * gw), gw)
        cx, cy, w, h = (t[:, 0] + gx) * s, (t[:, 1] + gy) * s, np.exp(t[:, 2]) * s, np.exp(t[:, 3]) * s
        # One class a cell, as the runtime reads it: a box is not counted twice.
        c = t[:, 5:].argmax(1)
        score = t[:, 4] * t[:, 5:].max(1)
        k = score > SCORE
        rows.append(np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, score, c], 1)[k])
    rows = np.concatenate(rows)
    rows[:, [0, 2]] = (rows[:, [0, 2]] * 2).clip(0, 640)
    rows[:, [1, 3]] = (rows[:, [1, 3]] * 2).clip(0, 384)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    kept = []
    for r in rows:
        if all(k[5] != r[5] or iou(k, r) <= nms for k in kept):
            kept.append(r)
        if len(kept) == 100:
            break
    return kept


def iou(a, b):
    iw, ih = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if iw <= 0 or ih <= 0:
        return 0.0
    i = iw * ih
    return i / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - i)


def average_precision(found, truth, c, limit):
    rows, total = [], sum(sum(1 for t in ts if t[4] == c) for ts in truth)
    for i, boxes in enumerate(found):
        free = [t for t in truth[i] if t[4] == c]
        for b in (b for b in boxes if b[5] == c):
            best = max(free, key=lambda t: iou(b, t), default=None)
            hit = best is not None and iou(b, best) >= limit
            if hit:
                free.remove(best)
            rows.append((b[4], hit))
    rows.sort(key=lambda r: -r[0])
    hits = np.cumsum([r[1] for r in rows])
    precision = hits / (np.arange(len(rows)) + 1)
    recall = hits / max(total, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.mean([precision[np.searchsorted(recall, r)] if len(recall) and r <= recall[-1] else 0 for r in np.linspace(0, 1, 101)]))


def main():
    data, out, n = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 500
    frames = np.fromfile(data + "/test/frames.bin", np.uint8).reshape(-1, H, W, 3)[:n]
    truth = [[] for _ in frames]
    for line in open(data + "/test/labels.txt"):
        v = line.split()
        if int(v[0]) < len(frames):
            truth[int(v[0])].append([float(k) for k in v[2:6]] + [int(v[1])])
    metrics = {"pictures": len(frames), "things": sum(map(len, truth))}
    for variant in ("fp32", "int8"):
        opt = ort.SessionOptions()
        opt.intra_op_num_threads = 2
        # Without it x86 machines that lack VNNI saturate INT8 products at 16 bits.
        opt.add_session_config_entry("session.x64quantprecision", "1")
        s = ort.InferenceSession(out + "/parcels_%s.onnx" % variant, opt, providers=["CPUExecutionProvider"])
        begin, found = time.time(), []
        for f in frames:
            x = np.ascontiguousarray(f.transpose(2, 0, 1)[None], np.float32) / 255
            found.append(decode(s.run(None, {"images": x})[0][0]))
        per = {NAMES[c]: average_precision(found, truth, c, 0.5) for c in range(NC)}
        wide = np.mean([average_precision(found, truth, c, l) for c in range(NC) for l in np.arange(0.5, 1, 0.05)])
        metrics[variant] = {"map50": round(float(np.mean(list(per.values()))), 4), "map50_95": round(float(wide), 4),
                            "ap50": {k: round(v, 4) for k, v in per.items()}}
        print(variant, metrics[variant], "%.0f s" % (time.time() - begin), flush=True)
    json.dump(metrics, open(out + "/metrics.json", "w"), indent=1)


if __name__ == "__main__":
    main()
