"""What tests on a GPU need: the GPU, TensorRT and pycuda, a bundle, and its engines, built on this machine.

A bundle is exported from the checkpoint that ships, or is that of SOTTOVOCE_GPU_BUNDLE (a device has no PyTorch).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.gpu import find_gpu
from sottovoce.runtime.errors import BackendError

BUNDLE_VARIABLE = "SOTTOVOCE_GPU_BUNDLE"
TARGET = "local"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs a GPU."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def gpu_name() -> str:
    """The GPU; without one, the reason why the tests are skipped."""
    gpu = find_gpu()
    if gpu is None:
        pytest.skip("no NVIDIA GPU with a driver on this machine")
    from sottovoce.runtime.backends.tensorrt import this_machine

    try:
        machine = this_machine()
    except BackendError as problem:
        pytest.skip(problem.message)
    if "tensorrt" not in machine.libraries:
        pytest.skip("TensorRT, which builds for the GPU of this machine, is not installed")
    return f"{gpu.name}, compute capability {gpu.compute_capability}, TensorRT {machine.libraries['tensorrt']}"


@pytest.fixture(scope="session")
def gpu_bundle(gpu_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """A bundle with engines of all its stages for this GPU."""
    from sottovoce.runtime.engines.build import build_engines

    path = tmp_path_factory.mktemp("gpu") / "gpu.bundle"
    given = os.environ.get(BUNDLE_VARIABLE)
    if given:
        shutil.copytree(given, path)
    else:
        from sottovoce.demos.first_answer import TRAINED
        from sottovoce.export.export import ExportOptions, export

        export(TRAINED.checkpoint, path, ExportOptions(target="tensorrt", precision="fp16"))
    bundle = Bundle.open(path)
    build_engines(bundle, [TARGET])
    yield bundle
    shutil.rmtree(path)
