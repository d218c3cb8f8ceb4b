"""Work in a thread ahead of its consumer."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")

POLL = 0.1  # seconds between checks of the stop
LONGEST_STOP = 5.0  # seconds until a thread that does not stop is abandoned


def ahead(
    items: Iterable[Item],
    size: int,
    drop_oldest: bool = False,
    stopped: Callable[[], bool] | None = None,
) -> Iterator[Item]:
    """Yield the items, which a thread computes ahead of the consumer.

    An exception of the thread is raised after the items before it. The thread ends when the
    iterator is exhausted or closed; then it closes `items`.

    Args:
        items: items; only the thread uses this iterable.
        size: maximum number of items ahead, which bounds memory.
        drop_oldest: drop the oldest item if there are `size`, instead of waiting for the consumer.
        stopped: function that returns True to end the iterator, also while it waits for an item.

    Example:
        >>> list(ahead(range(4), 2))
        [0, 1, 2, 3]
    """
    queue: Queue[tuple[str, Any]] = Queue(size)
    stop = Event()
    thread = Thread(target=_work, args=(items, queue, stop, drop_oldest), daemon=True)
    thread.start()
    try:
        while not (stopped and stopped()):
            with suppress(Empty):
                kind, value = queue.get(timeout=POLL)
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
    finally:
        stop.set()
        thread.join(LONGEST_STOP)


def _work(items: Iterable[Any], queue: Queue[Any], stop: Event, drop_oldest: bool) -> None:
    try:
        for item in items:
            if drop_oldest and queue.full():
                with suppress(Empty):
                    queue.get_nowait()
            _put(queue, ("item", item), stop)
            if stop.is_set():
                return
        _put(queue, ("end", None), stop)
    except BaseException as error:  # the consumer raises it
        _put(queue, ("error", error), stop)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _put(queue: Queue[Any], entry: Any, stop: Event) -> None:
    while not stop.is_set():
        with suppress(Full):
            queue.put(entry, timeout=POLL)
            return
