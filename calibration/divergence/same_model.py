"""Whether two bundles are of one model, and the one was made from the other; otherwise their values mean nothing."""

from __future__ import annotations

from sottovoce.runtime.bundle import MANIFEST_FILE, Bundle
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import STAGES, StageName, TensorSpec


def require_same_model(found: Bundle, reference: Bundle) -> None:
    """Refuse two bundles that cannot be compared.

    Args:
        found: the smaller bundle.
        reference: the one in floating point that it should be made from.

    Raises:
        BundleError: another family, tokenizer, table or contract; a reference that is quantized itself; or one that
            the smaller bundle was not made from. Says what was found and what was expected.
    """
    file = found.path / MANIFEST_FILE
    ours, theirs = found.manifest, reference.manifest
    if ours.model_family != theirs.model_family:
        raise _different("model_family", ours.model_family, theirs.model_family, found, reference)
    hashes = [bundle.manifest.files[bundle.manifest.tokenizer].sha256 for bundle in (found, reference)]
    if hashes[0] != hashes[1]:
        raise _different("the tokenizer's SHA-256", hashes[0], hashes[1], found, reference)
    for name in ("token_embeddings", "code_embeddings"):
        tables = [getattr(manifest, name) for manifest in (ours, theirs)]
        sizes = [f"{table.rows} × {table.width}" for table in tables]
        if sizes[0] != sizes[1]:
            raise _different(f"the table {name!r}", sizes[0], sizes[1], found, reference)
    for stage in STAGES:
        _require_same_contract(stage, found, reference)
    for stage in STAGES:
        if theirs.graphs[stage].has_integer_weights:
            precision = theirs.graphs[stage].precision
            message = f"stage {stage!r} of the bundle to compare with is {precision}, expected fp32 or fp16"
            fix = "give the bundle in floating point that both were made from"
            raise BundleError(message, file=reference.path / MANIFEST_FILE, fix=fix)
    if ours.quantization is not None:
        if ours.quantization.source_sha256 != reference.sha256:
            expected, given = ours.quantization.source_sha256, reference.sha256
            message = (
                f"it was made from the bundle whose {MANIFEST_FILE} has the SHA-256 {expected}; that of "
                f"{reference.path} has {given}"
            )
            raise BundleError(
                message, file=file, fix="give the bundle it was quantized from, or quantize this one anew"
            )
    elif ours.provenance.checkpoint_sha256 != theirs.provenance.checkpoint_sha256:
        found_hash, expected = ours.provenance.checkpoint_sha256, theirs.provenance.checkpoint_sha256
        raise _different("the checkpoint's SHA-256", found_hash, expected, found, reference)


def _require_same_contract(stage: StageName, found: Bundle, reference: Bundle) -> None:
    """Names and shapes; types of caches may differ."""
    ours, theirs = found.graph(stage), reference.graph(stage)
    for what, these, those in (("inputs", ours.inputs, theirs.inputs), ("outputs", ours.outputs, theirs.outputs)):
        for first, second in zip(these, those, strict=False):
            if _shape(first) != _shape(second):
                raise _different(f"{what} of {stage!r}", _shape(first), _shape(second), found, reference)
        if len(these) != len(those):
            raise _different(f"the number of {what} of {stage!r}", len(these), len(those), found, reference)


def _shape(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.shape}"


def _different(what: str, found: object, expected: object, bundle: Bundle, reference: Bundle) -> BundleError:
    return BundleError(
        f"another model than {reference.path}: {what} is {found}, expected {expected}",
        file=bundle.path / MANIFEST_FILE,
        fix="give two bundles of one checkpoint, exported for one target: the smaller one, and --against the one it "
        "was made from",
    )
