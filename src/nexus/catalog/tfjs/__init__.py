"""TensorFlow.js graph models to ONNX, with numpy and onnx alone.

TensorFlow keeps pictures as NHWC, ONNX convolves NCHW. Each value remembers in which of the two it
exists; a transpose is written only where a consumer needs the one that is missing, and element-wise
operations, concat, pad, mean and resize stay in NCHW where their input is. Inputs and outputs of
the graph stay NHWC.

Read in this order: `graph` (nodes and their order), `weights` (the .bin files), `builder` (values and
layouts), `elementwise`, `spatial` and `shapes` (the operations), `converter`.
"""
