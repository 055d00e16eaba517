"""What all stages share: a tensor is found by its role and fed under its name."""

from __future__ import annotations

import numpy as np

from sottovoce.runtime.backends.session import Array, Session
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.errors import BackendError


def input_name(session: Session, role: str) -> str:
    """The name under which the graph takes what plays `role`."""
    return tensor_by_role(session.spec.inputs, role).name


def output_name(session: Session, role: str) -> str:
    """The name under which the graph gives what plays `role`."""
    return tensor_by_role(session.spec.outputs, role).name


def finite(session: Session, role: str, values: Array) -> Array:
    """`values`, if every one is a number: an overflow must not become a wrong answer or a wrong sound.

    Raises:
        BackendError: there are infinities or NaNs.
    """
    if not np.isfinite(values).all():  # type: ignore[call-overload]  # floats, as every contract says
        # The stubs know isfinite for numbers only, and an Array may be of any type.
        bad = int(np.count_nonzero(~np.isfinite(values)))  # type: ignore[call-overload]
        raise BackendError(
            f"stage {session.stage!r} gave {bad} values in {role!r} that are no numbers, of {values.size}",
            fix="export with --precision fp32; if it happens there too, the checkpoint is damaged",
        )
    return values
