"""What `import sottovoce.runtime` brings along, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "onnx", "onnxscript", "scipy", "safetensors", "huggingface_hub")
GPU = ("tensorrt", "tensorrt_rtx", "pycuda")
"""Imported when an engine is built or run, since a device may have none of them."""
EVERYTHING = (
    "import pkgutil, importlib, sottovoce.runtime as runtime\n"
    "for module in pkgutil.walk_packages(runtime.__path__, 'sottovoce.runtime.'):\n"
    "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
)


def modules_after(code: str) -> set[str]:
    code += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import sottovoce.runtime",
        "from sottovoce.runtime import *",
        "from sottovoce.runtime import Assistant, read_audio",
        EVERYTHING,
    ],
)
def test_nothing_heavy_is_imported(code):
    loaded = modules_after(code)
    assert not loaded & {*HEAVY, *GPU}
    assert "sottovoce" in loaded


def test_the_package_alone_loads_no_engine():
    assert not modules_after("import sottovoce.runtime") & {"onnxruntime", "numpy", "tokenizers"}


def test_the_assistant_starts_without_what_only_files_need():
    assert not modules_after("from sottovoce.runtime import Assistant") & {"soundfile", "PIL", "av"}


def test_every_public_name_is_there():
    from sottovoce import runtime

    assert set(runtime.__all__) == set(runtime._MODULE_OF)
    assert set(runtime.__all__) <= set(dir(runtime))
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Asistant'"):
        _ = runtime.Asistant
