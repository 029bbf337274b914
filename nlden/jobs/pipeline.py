"""Reading ahead and writing behind in threads, through queues of bounded length."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE = 5.0  # seconds for the item in hand


class _End:
    """Closes a queue; carries the error that ended it, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """Iterate in a thread, ``depth`` items ahead; its errors are raised here."""
    waiting: queue.Queue[T | _End] = queue.Queue(depth)
    stop = threading.Event()

    def offer(item: T | _End) -> None:
        while not stop.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                offer(item)
                if stop.is_set():
                    break
        except BaseException as caught:
            error = caught
        offer(_End(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join(_PATIENCE)  # a pipe into which nobody writes keeps it forever


class WriteBehind(Generic[T]):
    """Consume items in a thread, at most ``depth`` behind.

    Use it as a context manager: leaving it waits until all is consumed. An error of the consumer
    is raised by the next :meth:`put` or on leaving.

    Args:
        consume: called with each item, in order.
        depth: items that may wait.
    """

    def __init__(self, consume: Callable[[T], None], depth: int = 4) -> None:
        self._consume = consume
        self._waiting: queue.Queue[T | _End] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "WriteBehind[T]":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._dropping = kind is not None
        self._waiting.put(_End())
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, item: T) -> None:
        """Hand over an item."""
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def _work(self) -> None:
        while not isinstance(item := self._waiting.get(), _End):
            # After an error the queue is still emptied, or the producer would wait forever.
            if self._error is None and not self._dropping:
                try:
                    self._consume(item)
                except BaseException as caught:
                    self._error = caught
