"""Trained weights in, a bundle out. Knows PyTorch; never imported on a device.

from sottovoce.export import ExportOptions, export

export("VITA-1.5", "assistant.bundle", ExportOptions(target="tensorrt"))
"""

from sottovoce.export.export import ExportOptions, ExportReport, StageReport, export

__all__ = ["ExportOptions", "ExportReport", "StageReport", "export"]
