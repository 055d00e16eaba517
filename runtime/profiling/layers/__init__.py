"""Inside the graphs: time by kind of layer and multiply-adds, as ONNX Runtime's own profiler tells them."""
