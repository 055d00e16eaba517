"""A whole bundle or none: what the writer does when all goes well, and when it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce.calibration.bundles.external_data import ExternalDataWriter
from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.export.embedding_tables import write_table
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import BundleManifest


@pytest.fixture
def manifest(tiny_bundle: Path) -> BundleManifest:
    return Bundle.open(tiny_bundle, verify_hashes=False).manifest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "a.bundle"


def write(place: Path, manifest: BundleManifest, content: str, *, force: bool = False) -> None:
    with BundleWriter(place, force=force) as writer:
        (writer.folder / "tokenizer.json").write_text(content)
        writer.seal(manifest)
        writer.publish()


def write_and_fail(place: Path, manifest: BundleManifest, problem: BaseException) -> None:
    """All but the last step, over whatever bundle is there."""
    with BundleWriter(place, force=True) as writer:
        (writer.folder / "tokenizer.json").write_text("new")
        writer.seal(manifest)
        raise problem


def write_weights_to_a_full_disk(place: Path) -> None:
    with BundleWriter(place, force=False) as writer:
        path = writer.folder / "graphs" / "codec.onnx.data"
        path.symlink_to("/dev/full")
        with ExternalDataWriter(path) as data:
            data.append("weight", np.zeros(1 << 20, np.float32))


def test_published_whole_with_sizes_and_hashes(place: Path, manifest: BundleManifest) -> None:
    with BundleWriter(place, force=False) as writer:
        (writer.folder / "graphs" / "codec.onnx").write_bytes(b"abc")
        sealed = writer.seal(manifest)
        assert not place.exists()
        writer.publish()
    assert list(sealed.files) == ["graphs/codec.onnx"]
    assert sealed.files["graphs/codec.onnx"].bytes == 3
    assert sealed.files["graphs/codec.onnx"].sha256.startswith("ba7816bf8f01cfea")
    assert sorted(path.name for path in place.iterdir()) == ["bundle.json", "graphs"]
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_no_step_can_be_skipped_or_repeated(place: Path, manifest: BundleManifest) -> None:
    with BundleWriter(place, force=False) as writer:
        with pytest.raises(RuntimeError, match="needs it sealed"):
            writer.publish()
        writer.seal(manifest)
        with pytest.raises(RuntimeError, match="needs it open"):
            writer.copy(Path(__file__), "tokenizer.json")
        with pytest.raises(RuntimeError, match="needs it open"):
            writer.seal(manifest)
    assert not place.exists(), "sealed, but never published"
    with pytest.raises(RuntimeError, match="abandoned"):
        writer.__enter__()


def test_an_existing_output_is_refused(place: Path, manifest: BundleManifest) -> None:
    write(place, manifest, "old")
    with pytest.raises(SottovoceError, match="is there already") as problem:
        write(place, manifest, "new")
    assert "--force" in str(problem.value.fix)
    assert (place / "tokenizer.json").read_text() == "old"


def test_force_replaces_a_bundle_only_at_the_end(place: Path, manifest: BundleManifest) -> None:
    write(place, manifest, "old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(place, manifest, ZeroDivisionError())
    assert (place / "tokenizer.json").read_text() == "old"
    write(place, manifest, "new", force=True)
    assert (place / "tokenizer.json").read_text() == "new"
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_force_does_not_replace_what_is_no_bundle(place: Path, manifest: BundleManifest) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("ten years of work")
    with pytest.raises(SottovoceError, match="not a bundle"):
        write(place, manifest, "new", force=True)
    assert (place / "thesis.txt").exists()


def test_what_was_kept_of_loading_its_graphs_is_not_part_of_it(place: Path, manifest: BundleManifest) -> None:
    with BundleWriter(place, force=False) as writer:
        (writer.folder / "graphs" / "codec.onnx").write_bytes(b"abc")
        writer.seal(manifest)
        (writer.folder / "graphs" / "codec.0.1.optimized").write_bytes(b"loaded and measured")
        (writer.folder / "graphs" / ".codec.2.optimizing").write_bytes(b"stopped while it was loaded")
        writer.reopen()
        (writer.folder / "quantization.json").write_text("what was measured")
        sealed = writer.seal(manifest)
        writer.publish()
    assert sorted(sealed.files) == ["graphs/codec.onnx", "quantization.json"]
    assert [path.name for path in (place / "graphs").iterdir()] == ["codec.onnx"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_or_a_link_in_the_place_is_refused(place: Path, manifest: BundleManifest, force: bool) -> None:
    place.symlink_to(place.parent)
    with pytest.raises(SottovoceError, match="not a folder"):
        write(place, manifest, "new", force=force)
    place.unlink()
    place.write_text("a file")
    with pytest.raises(SottovoceError, match="not a folder"):
        write(place, manifest, "new", force=force)


def test_something_that_comes_into_the_place_meanwhile_stays(place: Path, manifest: BundleManifest) -> None:
    with BundleWriter(place, force=False) as writer:
        writer.seal(manifest)
        place.mkdir()
        with pytest.raises(SottovoceError, match="is there already"):
            writer.publish()
    assert [path.name for path in place.parent.iterdir()] == [place.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
def test_a_full_disk_leaves_nothing_behind(place: Path) -> None:
    with pytest.raises(SottovoceError, match="disk became full") as problem:
        write_weights_to_a_full_disk(place)
    assert "room" in str(problem.value.fix)
    assert list(place.parent.iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(place: Path, manifest: BundleManifest) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(place, manifest, KeyboardInterrupt())
    assert list(place.parent.iterdir()) == []


def test_too_little_room_is_said_before_the_work(place: Path) -> None:
    with (
        pytest.raises(SottovoceError, match=r"needs about 1,000,000,0\d\d MB"),
        BundleWriter(place, force=False) as writer,
    ):
        writer.require_space(10**15)


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SottovoceError, match="cannot read or write") as problem,
        BundleWriter(tmp_path / "file" / "a.bundle", force=False),
    ):
        pass
    assert str(tmp_path / "file") in str(problem.value.file)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "<f4"), ("fp16", "<f2")])
def test_tables_are_raw_rows(place: Path, precision: str, dtype: str) -> None:
    table = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with BundleWriter(place, force=False) as writer:
        spec = write_table(writer, "t.bin", ("embedding.weight", table), precision)  # type: ignore[arg-type]
        stored = np.fromfile(writer.folder / "t.bin", dtype)
        assert (spec.rows, spec.width) == (5000, 3)
        np.testing.assert_array_equal(stored.reshape(5000, 3), table.float().numpy().astype(dtype))


def test_a_table_beyond_float16_is_refused(place: Path) -> None:
    with pytest.raises(SottovoceError, match=r"embedding\.weight.*70000"), BundleWriter(place, force=False) as writer:
        write_table(writer, "t.bin", ("embedding.weight", torch.full((2, 2), 70000.0)), "fp16")
