"""What sessions around another one have in common: all but the calls, which are what each of them is there for."""

from __future__ import annotations

from sottovoce.runtime.backends.session import CacheBuffers, Session
from sottovoce.runtime.manifest import GraphSpec


class PassingSession:
    """Passes on everything but `run` and `run_with_cache`.

    Args:
        session: does the work.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def spec(self) -> GraphSpec:
        """The graph's contract."""
        return self._session.spec

    @property
    def stage(self) -> str:
        """The name of the stage, for messages."""
        return self._session.stage

    @property
    def widened(self) -> bool:
        """As the session says."""
        return self._session.widened

    @property
    def max_positions(self) -> int | None:
        """As the session says."""
        return self._session.max_positions

    def create_cache(self, capacity: int) -> CacheBuffers:
        """The session's own buffers."""
        return self._session.create_cache(capacity)

    def close(self) -> None:
        """Release the session."""
        self._session.close()
