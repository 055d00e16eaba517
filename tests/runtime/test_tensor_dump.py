"""Tensors of a run in one archive: joined, whole or not there."""

from __future__ import annotations

import numpy as np
import pytest

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.tensor_dump import TensorDump


def test_what_is_added_under_one_name_is_joined(tmp_path):
    dump, row = TensorDump(), np.zeros((1, 3), dtype=np.float32)
    for value in range(4):
        row[:] = value
        dump.add("llm.step_logits", row)
    dump.add("speech.codes", np.array([5, 6]))
    dump.write(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as tensors:
        assert set(tensors.files) == {"llm.step_logits", "speech.codes"}
        assert tensors["llm.step_logits"][:, 0].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_an_earlier_file_is_replaced(tmp_path):
    (tmp_path / "run.npz").write_bytes(b"old")
    TensorDump().write(tmp_path / "run.npz")
    assert (tmp_path / "run.npz").read_bytes()[:2] == b"PK"


def test_the_name_is_taken_as_it_is(tmp_path):
    TensorDump().write(tmp_path / "tensors")
    assert (tmp_path / "tensors").is_file()


def test_no_folder_to_write_into(tmp_path):
    with pytest.raises(InputError, match="does not exist") as caught:
        TensorDump().write(tmp_path / "nowhere" / "run.npz")
    assert caught.value.fix


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "run.npz").write_bytes(b"old")
    dump = TensorDump()
    dump.add("speech.codes", np.zeros(2))
    dump.add("speech.codes", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="dimension"):
        dump.write(tmp_path / "run.npz")
    assert (tmp_path / "run.npz").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
