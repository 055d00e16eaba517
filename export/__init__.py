"""Trained weights in, a bundle out. Knows PyTorch; never imported on a device.

`sottovoce.export.export.export` is the door: the whole way in one call.
"""
