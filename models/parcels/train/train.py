# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the parcels detector on CPU and writes OUT/net.pt.

    train.py DATA OUT [EPOCHS]

DATA/train holds what `generate` wrote. The graph that export.py makes of it ends in the YOLOX layout
[1, 1200, 5 + 3]: per cell of the strides 8 (40 x 24 cells) and 16 (20 x 12) the
offset of the middle and the logarithm of the size, both in cells, the objectness
and the classes, both through a sigmoid.
"""
import sys, time
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

W, H, NC = 320, 192, 3
STRIDES = (8, 16)


def cbr(cin, cout, k=3, s=1):
    return nn.Sequential(nn.Conv2d(cin, cout, k, s, k // 2, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


class Res(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a, self.b = cbr(c, c // 2, 1), cbr(c // 2, c)

    def forward(self, x):
        return x + self.b(self.a(x))


class Head(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.stem = cbr(c, 48)
        self.box, self.obj, self.cls = nn.Conv2d(48, 4, 1), nn.Conv2d(48, 1, 1), nn.Conv2d(48, NC, 1)
        nn.init.constant_(self.obj.bias, -4.0)  # most cells are empty

    def forward(self, x):
        f = self.stem(x)
        return self.box(f), self.obj(f), self.cls(f)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.s2, self.s4 = cbr(3, 16, 3, 2), nn.Sequential(cbr(16, 24, 3, 2), Res(24))
        self.s8 = nn.Sequential(cbr(24, 48, 3, 2), Res(48))
        self.s16 = nn.Sequential(cbr(48, 80, 3, 2), Res(80))
        self.s32 = nn.Sequential(cbr(80, 96, 3, 2), Res(96))
        self.l32, self.l16, self.l8 = cbr(96, 64, 1), cbr(80, 64, 1), cbr(48, 64, 1)
        self.h8, self.h16 = Head(64), Head(64)

    def forward(self, x):
        c8 = self.s8(self.s4(self.s2(x)))
        c16 = self.s16(c8)
        c32 = self.s32(c16)
        p16 = self.l16(c16) + F.interpolate(self.l32(c32), scale_factor=2.0, mode="nearest")
        p8 = self.l8(c8) + F.interpolate(p16, scale_factor=2.0, mode="nearest")
        return self.h8(p8), self.h16(p16)


class Export(nn.Module):
    """The net with its heads joined into the YOLOX layout."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        rows = []
        for box, obj, cls in self.net(images):
            t = torch.cat([box, obj.sigmoid(), cls.sigmoid()], 1)
            rows.append(t.flatten(2))
        return torch.cat(rows, 2).transpose(1, 2)


def load(folder):
    raw = np.fromfile(folder + "/frames.bin", np.uint8)
    frames = raw.reshape(-1, H, W, 3)
    things = [[] for _ in range(len(frames))]
    for line in open(folder + "/labels.txt"):
        v = line.split()
        things[int(v[0])].append((int(v[1]), *[float(c) / 2 for c in v[2:6]]))
    return frames, things


def targets(batch, flips):
    """Per stride: objectness, class and box for every cell. Labels belong to stride
    8, parcels to 16: a label lies on a parcel, and a cell can tell one thing."""
    out = []
    for s in STRIDES:
        gh, gw = H // s, W // s
        pos = np.zeros((len(batch), gh, gw), np.float32)
        cls = np.zeros((len(batch), gh, gw), np.int64)
        box = np.zeros((len(batch), 4, gh, gw), np.float32)
        for i, (things, (fx, fy)) in enumerate(zip(batch, flips)):
            # Larger things first, so that a smaller one keeps its cells.
            for c, x0, y0, x1, y1 in sorted(things, key=lambda t: -(t[3] - t[1]) * (t[4] - t[2])):
                if (c == 2) != (s == 8):
                    continue
                if fx:
                    x0, x1 = W - x1, W - x0
                if fy:
                    y0, y1 = H - y1, H - y0
                cx, cy = (x0 + x1) / 2 / s, (y0 + y1) / 2 / s
                r = 1.2 if s == 8 else 1.5
                for gy in range(max(0, int(cy - r)), min(gh, int(cy + r) + 1)):
                    for gx in range(max(0, int(cx - r)), min(gw, int(cx + r) + 1)):
                        if max(abs(gx + 0.5 - cx), abs(gy + 0.5 - cy)) > r:
                            continue
                        pos[i, gy, gx], cls[i, gy, gx] = 1, c
                        box[i, :, gy, gx] = cx - gx, cy - gy, np.log((x1 - x0) / s), np.log((y1 - y0) / s)
        out.append((torch.from_numpy(pos), torch.from_numpy(cls), torch.from_numpy(box)))
    return out


def iou(p, t):
    """IoU of boxes given as cell offset and log size; same cell, so same origin."""
    pw, ph, tw, th = p[:, 2].exp(), p[:, 3].exp(), t[:, 2].exp(), t[:, 3].exp()
    ix = (torch.min(p[:, 0] + pw / 2, t[:, 0] + tw / 2) - torch.max(p[:, 0] - pw / 2, t[:, 0] - tw / 2)).clamp(min=0)
    iy = (torch.min(p[:, 1] + ph / 2, t[:, 1] + th / 2) - torch.max(p[:, 1] - ph / 2, t[:, 1] - th / 2)).clamp(min=0)
    inter = ix * iy
    return inter / (pw * ph + tw * th - inter + 1e-6)


def loss(outs, tgts):
    total = 0.0
    for (box, obj, cls), (pos, tc, tb) in zip(outs, tgts):
        obj = obj[:, 0]
        m = pos > 0
        n = m.sum().clamp(min=1)
        q = torch.zeros_like(pos)
        if m.any():
            pb, gb = box.permute(0, 2, 3, 1)[m].clamp(-6, 6), tb.permute(0, 2, 3, 1)[m]
            overlap = iou(pb, gb)
            # Cells that place their thing well may be surer of it (as in GFL).
            q[m] = overlap.detach().clamp(0.3, 1)
            total = total + 3 * (1 - overlap).sum() / n + 0.5 * F.smooth_l1_loss(pb, gb, reduction="sum") / n
            want = F.one_hot(tc[m], NC).float()
            total = total + F.binary_cross_entropy_with_logits(cls.permute(0, 2, 3, 1)[m], want, reduction="sum") / n
        p = obj.sigmoid()
        w = (p - q).abs().detach() ** 1.5 + 0.02 * q
        total = total + 4 * (w * F.binary_cross_entropy_with_logits(obj, q, reduction="none")).sum() / n
    return total


def main():
    data, out, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 16
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    torch.set_num_threads(2)
    frames, things = load(data + "/train")
    net, batch = Net(), 24
    print("parameters", sum(p.numel() for p in net.parameters()), "pictures", len(frames), flush=True)
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = epochs * (len(frames) // batch)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=steps, pct_start=0.1)
    begin = time.time()
    for e in range(epochs):
        net.train()
        order, sums = rng.permutation(len(frames)), 0.0
        for k in range(len(frames) // batch):
            idx = order[k * batch:(k + 1) * batch]
            flips = rng.random((batch, 2)) < 0.5
            x = frames[np.sort(idx)].astype(np.float32)
            for i in range(batch):
                if flips[i, 0]:
                    x[i] = x[i, :, ::-1]
                if flips[i, 1]:
                    x[i] = x[i, ::-1]
            # Light and colour of other lamps and sensors.
            x = (x * rng.uniform(0.75, 1.25, (batch, 1, 1, 1)) * rng.uniform(0.93, 1.07, (batch, 1, 1, 3))).clip(0, 255)
            x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32) / 255)
            l = loss(net(x), targets([things[i] for i in np.sort(idx)], flips))
            opt.zero_grad()
            l.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 10)
            opt.step()
            sched.step()
            sums += float(l)
        print("epoch %d loss %.4f, %.0f s" % (e + 1, sums / (len(frames) // batch), time.time() - begin), flush=True)
        net.eval()
        torch.save(net.state_dict(), out + "/net.pt")
    print("trained in %.1f minutes" % ((time.time() - begin) / 60))


if __name__ == "__main__":
    main()
