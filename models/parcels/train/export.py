# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes OUT/parcels_fp32.onnx from OUT/net.pt: export.py OUT"""
import sys
import torch
from train import H, W, Export, Net


def main():
    out = sys.argv[1]
    net = Net()
    net.load_state_dict(torch.load(out + "/net.pt"))
    torch.onnx.export(Export(net).eval(), torch.zeros(1, 3, H, W), out + "/parcels_fp32.onnx", opset_version=13,
                      input_names=["images"], output_names=["output"], do_constant_folding=True)


if __name__ == "__main__":
    main()
