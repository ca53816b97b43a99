# Copyright (c) The Fulmar Authors
# SPDX-License-Identifier: Apache-2.0
"""Quantizes parcels_fp32.onnx to INT8 with Q/DQ nodes.

    quantize.py DATA OUT

Symmetric INT8 everywhere with zero point 0 (per channel for weights, per tensor
for activations), which is what TensorRT takes; calibrated on DATA/calibration,
whose settings are in neither of the other splits.

Only what goes into a convolution is quantized: Q/DQ pairs sit before convolutions
and nowhere else. Between a convolution and its ReLU there is none, so TensorRT fuses
the two into one INT8 layer, and no code is spent on values that ReLU throws away.
Weights are stored in floating point behind a Q/DQ pair and biases are not quantized:
the parser of TensorRT 8 takes neither INT8 weights nor an INT32 DequantizeLinear.
The six last convolutions (1x1), the sigmoids and the join stay in floating point:
one byte is too coarse for a logarithm of a size.
"""
import sys
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

W, H = 320, 192


class Frames(CalibrationDataReader):
    def __init__(self, folder, n=120):
        raw = np.fromfile(folder + "/frames.bin", np.uint8).reshape(-1, H, W, 3)[:n]
        self.rows = iter(raw)

    def get_next(self):
        x = next(self.rows, None)
        if x is None:
            return None
        return {"images": np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32) / 255}


def main():
    data, out = sys.argv[1], sys.argv[2]
    fp32, prepared, int8 = out + "/parcels_fp32.onnx", out + "/prepared.onnx", out + "/parcels_int8.onnx"
    quant_pre_process(fp32, prepared)
    graph = onnx.load(prepared).graph
    last = [n.name for n in graph.node if n.op_type == "Conv" and n.name.split("/")[-2] in ("box", "obj", "cls")]
    if len(last) != 6:
        sys.exit("want 6 last convolutions, found %s" % last)
    quantize_static(
        prepared, int8, Frames(data + "/calibration"), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["Conv"], nodes_to_exclude=last,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["Conv"],
                       "AddQDQPairToWeight": True, "DedicatedQDQPair": True, "QuantizeBias": False})
    model = onnx.load(int8)
    kinds = {}
    for n in model.graph.node:
        kinds[n.op_type] = kinds.get(n.op_type, 0) + 1
    for t in model.graph.initializer:
        if t.name.endswith("zero_point") and np.any(onnx.numpy_helper.to_array(t)):
            sys.exit("zero point of %s is not 0" % t.name)
        if not t.name.endswith("zero_point") and t.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64):
            sys.exit("%s is stored in type %d" % (t.name, t.data_type))
    print("nodes", kinds)


if __name__ == "__main__":
    main()
