"""Plain values and references between a checker and the program that it checks, over two pipes.

What the program sends is read by an unpickler that makes values of Python's own types and nothing else: no
class of the program, with an `__eq__` of its own, ever comes to the checker. An object that is no plain value
stays with the program, and the checker has a `Remote` in its place.
"""

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

# Types that nobody can change, attributes included: pickles may set attributes of what they name.
_PLAIN: tuple[type, ...] = (
    *(int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset),
    *(range, slice, bool, type(None)),
)
_BASES = _PLAIN[:11]  # those that have subclasses
_NAMES = {kind.__name__: kind for kind in _PLAIN[:13]}
_LENGTH = struct.Struct("<Q")
_MOST_BYTES = 1 << 30  # of a message


class Remote:
    """An object of the program. Attributes and calls go there; it is equal to nothing but itself."""

    def __init__(self, index: int, ask: Callable[..., Any]) -> None:
        self.__dict__.update(_index=index, _ask=ask)

    def __getattr__(self, name: str) -> Any:
        return self._ask("get", self, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", self, arguments, named)


class Outgoing(pickle.Pickler):
    """Of the program: plain values as they are, also those of subclasses; other objects as their number."""

    def __init__(self, file: BinaryIO, kept: list[Any]) -> None:
        super().__init__(file, protocol=4)
        self._kept = kept

    def persistent_id(self, value: Any) -> int | None:
        """The number of an object that stays."""
        if isinstance(value, _PLAIN) or any(value is kind for kind in _PLAIN):
            return None
        self._kept.append(value)
        return len(self._kept) - 1

    def reducer_override(self, value: Any) -> Any:
        """A value of a subclass as its base's."""
        base = next((kind for kind in _BASES if isinstance(value, kind)), None)
        return NotImplemented if base is None or type(value) is base else (base, (base(value),))


class Returning(pickle.Unpickler):
    """Of the program: what the checker sent, with objects of the program in place of their `Remote`."""

    def __init__(self, file: BinaryIO, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_load(self, index: Any) -> Any:
        """The object of a number."""
        return self._kept[index]


class Incoming(pickle.Unpickler):
    """Of the checker: values of plain types, and a `Remote` for each object of the program."""

    def __init__(self, file: BinaryIO, ask: Callable[..., Any]) -> None:
        super().__init__(file)
        self._ask = ask

    def find_class(self, module: str, name: str) -> Any:
        """Plain types alone."""
        if module != "builtins" or name not in _NAMES:
            raise pickle.UnpicklingError(f"names {module}.{name}")
        return _NAMES[name]

    def persistent_load(self, index: Any) -> Any:
        """A reference to the program's object."""
        return Remote(int(index), self._ask)


class Sending(pickle.Pickler):
    """Of the checker: values, and a `Remote` as its number."""

    def persistent_id(self, value: Any) -> int | None:
        """The number of the program's object."""
        return value._index if type(value) is Remote else None


def send(fd: int, pickled: io.BytesIO) -> None:
    """Writes one message."""
    data = memoryview(_LENGTH.pack(pickled.tell()) + pickled.getvalue())
    with open(fd, "wb", closefd=False, buffering=0) as file:
        while data:
            data = data[file.write(data) :]


def receive(fd: int) -> io.BytesIO:
    """Reads one message.

    Raises:
        EOFError: the other side has ended.
        ValueError: something else than a message was sent.
    """
    with open(fd, "rb", closefd=False, buffering=0) as file:
        (length,) = _LENGTH.unpack(_exactly(file, _LENGTH.size))
        if length > _MOST_BYTES:
            raise ValueError(f"a message of {length} bytes")
        return io.BytesIO(_exactly(file, length))


def _exactly(file: Any, count: int) -> bytearray:
    data = bytearray()
    while len(data) < count:
        piece = file.read(min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError("the program has ended")
        data += piece
    return data
