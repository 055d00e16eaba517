"""TensorRT and pycuda without a GPU: their own calls, computed by ONNX Runtime, in memory that only they can reach.

What is written against the real libraries runs here, and what would be wrong there fails here: device memory is an
address space of its own, work is queued until a stream is waited for, addresses and sizes are compared with what is
allocated, and what is still allocated at the end is a failure.

| file | stands for |
| --- | --- |
| device.py | the GPU: memory, streams, captured graphs, faults on demand |
| driver.py | `pycuda.driver` |
| driver_library.py | the few calls of `libcuda.so.1` for graphs |
| library.py | `tensorrt` |
| installing.py | all of them in place of the real ones, and engines of a bundle |
"""
