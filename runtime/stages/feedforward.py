"""A stage with one input, one output and no memory between calls."""

from __future__ import annotations

from sottovoce.runtime.backends.session import Array, Session
from sottovoce.runtime.stages.tensors import finite, input_name, output_name


class FeedForwardStage:
    """Calls a session by role.

    Args:
        session: the loaded graph.
        input_role: what it takes.
        output_role: what it gives.
    """

    def __init__(self, session: Session, input_role: str, output_role: str) -> None:
        self._session = session
        self._output_role = output_role
        self._input = input_name(session, input_role)
        self._output = output_name(session, output_role)

    def run(self, values: Array) -> Array:
        """One call; a result that is not finite is an error (`BackendError`)."""
        results = self._session.run({self._input: values}, [self._output])
        return finite(self._session, self._output_role, results[self._output])
