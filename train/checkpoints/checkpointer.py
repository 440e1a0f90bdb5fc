"""Writing checkpoints in the background while training continues."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from train.errors import TrainError


class AsyncCheckpointer:
    """Write checkpoints in a background thread, one at a time.

    A failed write is logged and training continues. Use it as a context: on exit it waits for the
    running write, and raises TrainError if that fails.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.running: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        failure = self._finish()
        self.pool.shutdown()
        if failure and error is None:
            raise TrainError(f"{failure}; older checkpoints are intact: the same command continues from them")
        if failure:
            self.say(f"checkpoint not saved: {failure}")

    def start(self, write: Callable[[], Any]) -> None:
        """Start a write, after the running one. What it writes must not change any more."""
        self.wait()
        self.running = self.pool.submit(write)

    def wait(self) -> None:
        """Wait for the running write. Call it before exporting a state, so that memory holds one copy at most."""
        if failure := self._finish():
            self.say(
                f"checkpoint not saved: {failure} (older checkpoints are intact; training continues and will retry)"
            )

    def poll(self) -> None:
        """Log a failure of the running write, if it has finished. Does not block."""
        if self.running and self.running.done():
            self.wait()

    def _finish(self) -> str:
        """Wait for the running write; return its error, or ""."""
        error = self.running.exception() if self.running else None
        self.running = None
        if error is None:
            return ""
        return str(error) if isinstance(error, TrainError) else f"{type(error).__name__}: {error}"
