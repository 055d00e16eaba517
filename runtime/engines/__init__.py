"""ONNX graphs into TensorRT engines, here or ahead of time, and the record of how each was built.

Engines are built on the device that they run on, so this room does it: no torch, no onnx.
"""
