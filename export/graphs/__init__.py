"""One file a stage: its ONNX graph and its contract."""
