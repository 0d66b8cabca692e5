"""`loop._ready`: what will run in the next iteration, as the deque that it is in asyncio."""

from collections.abc import Iterable, Iterator, MutableSequence
from typing import Any

from ctask import _ctask

_at, _length = _ctask.Loop._ready_at, _ctask.Loop._ready_length
_put, _take = _ctask.Loop._ready_put, _ctask.Loop._ready_take
_clear = _ctask.Loop._ready_clear


class ReadyQueue(MutableSequence[Any]):
    """The handles that are ready, in order. Changes are changes of the loop's queue."""

    __slots__ = ("_loop",)

    def __init__(self, loop: _ctask.Loop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return _length(self._loop)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __getitem__(self, index: Any) -> Any:
        return _at(self._loop, self._place(index))

    def __setitem__(self, index: Any, handle: Any) -> None:
        place = self._place(index)
        _take(self._loop, place)
        _put(self._loop, place, handle)

    def __delitem__(self, index: Any) -> None:
        _take(self._loop, self._place(index))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ReadyQueue | list):
            return NotImplemented
        return self.copy() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"deque({self.copy()!r})"

    def _place(self, index: Any) -> int:
        length = len(self)
        place: int = index.__index__()
        place += length if place < 0 else 0
        if not 0 <= place < length:
            raise IndexError("deque index out of range")
        return place

    def copy(self) -> list[Any]:
        """Return the handles in a list."""
        return [_at(self._loop, place) for place in range(len(self))]

    def insert(self, index: int, handle: Any) -> None:
        """Put a handle before that place."""
        length = len(self)
        _put(self._loop, max(index + length, 0) if index < 0 else min(index, length), handle)

    def append(self, handle: Any) -> None:
        """Put a handle to the end."""
        _put(self._loop, len(self), handle)

    def appendleft(self, handle: Any) -> None:
        """Put a handle to the beginning."""
        _put(self._loop, 0, handle)

    def extendleft(self, handles: Iterable[Any]) -> None:
        """Put handles to the beginning, one after the other."""
        for handle in list(handles):
            self.appendleft(handle)

    def pop(self, index: int = -1) -> Any:
        """Take the last handle, or the one at that place; raises IndexError if there is none."""
        if not len(self):
            raise IndexError("pop from an empty deque")
        return _take(self._loop, self._place(index))

    def popleft(self) -> Any:
        """Take the first handle; raises IndexError if there is none."""
        return self.pop(0)

    def clear(self) -> None:
        """Forget all handles."""
        _clear(self._loop)

    def rotate(self, n: int = 1) -> None:
        """Move the last n handles to the beginning, or the first -n to the end."""
        length = len(self)
        for _ in range(n % length if length else 0):
            self.appendleft(self.pop())
