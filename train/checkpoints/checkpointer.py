"""Checkpoints written in the background, so that a run goes on meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from train.errors import TrainError


class Saver:
    """One write at a time. A failed one is told of and costs nothing but itself, unless it was the last.

    Used as a context: its end waits for the write in flight and raises TrainError where that failed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.running: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failure = self._ended()
        self.pool.shutdown()
        if failure and error is None:
            raise TrainError(f"{failure}; older checkpoints are whole: the same command goes on from them")
        if failure:
            self.say(f"NOT SAVED: {failure}")

    def begin(self, write: Callable[[], Any]) -> None:
        """Start a write of what nobody changes any more, such as an exported state."""
        self.wait()
        self.running = self.pool.submit(write)

    def wait(self) -> None:
        """Wait until nothing is being written; exporting before that would hold two copies of the state."""
        if failure := self._ended():
            self.say(f"NOT SAVED: {failure}; older checkpoints are whole, training goes on and will try again")

    def look(self) -> None:
        """Tell of a failure as soon as it is known, without waiting."""
        if self.running and self.running.done():
            self.wait()

    def _ended(self) -> str:
        """Wait for the write in flight; what it failed of, or nothing."""
        error = self.running.exception() if self.running else None
        self.running = None
        if error is None:
            return ""
        return str(error) if isinstance(error, TrainError) else f"{type(error).__name__}: {error}"
