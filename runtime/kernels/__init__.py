"""Kernels of our own for ONNX Runtime on a CPU: cached attention, and products with weights in 4 and 8 bits."""
