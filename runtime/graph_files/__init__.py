"""ONNX files read and written as bytes: the runtime has no `onnx`."""
