"""What asyncio's names look like: `python looks.py asyncio|install NAME ...` prints it as JSON.

For test_passing.py, which compares what stock asyncio says with what it says after install().
Every answer is a string, an exception's too; addresses are left out.
"""

import asyncio
import contextlib
import copy
import functools
import hashlib
import inspect
import io
import json
import pickle
import re
import sys
import typing
import unittest.mock
import weakref
from asyncio import streams

PRIVATE = ("__init__", "__aenter__", "__aexit__", "__aiter__", "__anext__", "__class_getitem__")
OTHERS = ("int", "dict", "list", "Exception", "Plain")


class Plain:
    """A base that is nothing special."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Transport(asyncio.Transport):
    """One that is closed, so that nobody minds a writer that was not."""

    def is_closing(self):
        return True

    def close(self):
        pass


def told(ask, *args):
    """The answer, or the exception, in words that do not differ from run to run."""
    try:
        answer = ask(*args)
    except Exception as exc:
        answer = f"{type(exc).__name__}: {exc}"
    return re.sub(r"0x[0-9a-f]+", "0x", str(answer)).replace(
        "<_UnixSelectorEventLoop", "<ctask.EventLoop"
    )


def public(obj):
    return sorted(name for name in dir(obj) if not name.startswith("_"))


def resolve(name):
    return getattr(streams if name == "StreamReaderProtocol" else asyncio, name)


def arguments(name, loop):
    """(args, kwargs) that make an object of the class."""
    if name == "Timeout":
        return (None,), {}
    if name == "StreamReader":
        return (), {"loop": loop}
    if name == "StreamReaderProtocol":
        return (asyncio.StreamReader(loop=loop),), {"loop": loop}
    if name == "StreamWriter":
        return (Transport(), None, None, loop), {}
    return (), {}


def source(obj):
    return hashlib.sha1(inspect.getsource(obj).encode()).hexdigest()


def of_function(function):
    yield "signature", told(inspect.signature, function)
    yield "doc", told(inspect.getdoc, function)
    yield "source", told(source, function)
    yield "file", told(inspect.getsourcefile, function)
    yield "repr", told(repr, function)
    yield "hints", told(typing.get_type_hints, function)
    yield "coroutine", told(inspect.iscoroutinefunction, function)
    yield "asyncio's", told(inspect.isawaitable, function)
    yield "wrapped", told(lambda: inspect.signature(functools.wraps(function)(lambda: None)))
    yield "autospec", told(lambda: type(unittest.mock.create_autospec(function)).__name__)
    for attribute in ("__name__", "__qualname__", "__module__", "__annotations__", "__defaults__"):
        yield attribute, told(getattr, function, attribute)
    yield "weak reference", told(lambda: weakref.ref(function)() is function)
    yield "attributes", told(marked, function)


def marked(function):
    """What is written to a function, as by a decorator, can be read, and taken away again."""
    function.mark = "written"
    read = function.mark, vars(function)["mark"], getattr(function, "mark", None)
    del function.mark
    return (*read, hasattr(function, "mark"))


def weakly(make, method):
    """As registries of callbacks refer to a bound method: for as long as its object lives."""
    obj = make()
    reference = weakref.WeakMethod(getattr(obj, method))
    return reference() == getattr(obj, method)


def by_pickle(obj, protocol):
    return pickle.loads(pickle.dumps(obj, protocol))


def state(obj):
    """The attributes and their values, but for an event, and for None where the class says so."""
    left_out = ("_finished", "_source_traceback")
    return sorted((name, repr(value)) for name, value in vars(obj).items() if name not in left_out)


def put(obj):
    """Attributes of its own stay with a copy."""
    obj.colour = "red"
    return obj


def of_class(name, cls, loop):
    args, kwargs = arguments(name, loop)

    def make(cls=cls):
        return cls(*args, **kwargs)

    yield "signature", told(inspect.signature, cls)
    yield "doc", told(inspect.getdoc, cls)
    yield "source", told(source, cls)
    yield "file", told(inspect.getsourcefile, cls)
    yield "repr", told(repr, cls)
    yield "dir", told(public, cls)
    yield "dir of an object", told(lambda: public(make()))
    yield "abstract", told(inspect.isabstract, cls)
    yield "metaclass", told(type, cls)
    yield "subscript", told(lambda: cls[int])
    yield "wrong arguments", told(lambda: cls(1, 2, 3, 4, 5, nonsense=6))
    yield "class by pickle", told(lambda: by_pickle(cls, 2) is cls)
    for attribute in ("__name__", "__qualname__", "__module__", "__annotations__"):
        yield attribute, told(getattr, cls, attribute)
    for method in sorted({*public(cls), *PRIVATE}):
        function = getattr(cls, method, None)
        if inspect.isroutine(function):
            for ask, answer in of_function(function):
                yield f"{method}: {ask}", answer
            yield f"{method}: weak method", told(weakly, make, method)
    yield "object", told(lambda: repr(make()))
    yield "string", told(lambda: str(make()))
    yield "attributes", told(lambda: state(make()))
    yield "copy", told(lambda: state(copy.copy(put(make()))))
    yield "deepcopy", told(lambda: state(copy.deepcopy(put(make()))))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle {protocol}", told(lambda p=protocol: state(by_pickle(put(make()), p)))
    yield "reference", told(lambda: (lambda obj: weakref.ref(obj)() is obj)(make()))
    yield "equality", told(lambda: (make() == make(), len({make(), make()})))
    yield "attribute", told(lambda: put(make()).colour)
    yield "no attribute", told(lambda: make().colour)
    yield "private attribute", told(lambda: cls._locked)
    yield "new", told(lambda: type(cls.__new__(cls)) is cls)
    yield "autospec", told(lambda: type(unittest.mock.create_autospec(cls)).__name__)
    for kind in (unittest.mock.MagicMock, unittest.mock.AsyncMock):
        for method in public(cls):
            found = told(lambda k=kind, m=method: type(getattr(k(spec=cls), m)).__name__)
            yield f"{kind.__name__}: {method}", found
    yield from of_subclasses(name, cls, make)


def of_subclasses(name, cls, make):
    class Derived(cls):
        flavour = "sweet"

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.colour = "red"

    class Slotted(cls):
        __slots__ = ("colour", "size")

    class Made(cls):
        def __new__(cls, *args, **kwargs):
            return super().__new__(cls)

    yield "derived", told(lambda: state(make(Derived)))
    yield "derived, its signature", told(inspect.signature, Derived)
    yield "derived, of another class", told(lambda: change_class(make(Derived), Derived))
    yield "slots", told(lambda: (state(make(Slotted)), put(make(Slotted)).colour))
    yield "made by __new__", told(lambda: state(make(Made)))
    for other in (*OTHERS, "Lock", "Event", "Queue", "Semaphore", "Condition", "Future"):
        base = globals().get(other) or getattr(asyncio, other, None) or __builtins__.__dict__[other]
        if issubclass(cls, base):
            continue
        for bases in ((cls, base), (base, cls)):
            names = "+".join(b.__name__ for b in bases)
            yield names, told(with_bases, bases, make)


def change_class(obj, cls):
    other = type("Other", (cls,), {})
    obj.__class__ = other
    return type(obj) is other and obj.colour


def with_bases(bases, make):
    """Make the class, an object of it, and use it as far as it goes."""
    if asyncio.Future in bases:
        return type("Both", bases, {}).__name__  # which of the two starts it is another matter
    obj = make(type("Both", bases, {}))
    used = [
        told(getattr(obj, method))
        for method in (
            "locked",
            "release",
            "set",
            "is_set",
            "clear",
            "qsize",
            "empty",
            "get_nowait",
        )
        if inspect.isroutine(getattr(obj, method, None))
    ]
    return state(obj), used


def main():
    how, *names = sys.argv[1:]
    if how == "install":
        import ctask

        ctask.install()
    loop = asyncio.new_event_loop()
    looks = {}
    with contextlib.redirect_stderr(io.StringIO()):
        for name in names:
            obj = resolve(name)
            asked = of_class(name, obj, loop) if isinstance(obj, type) else of_function(obj)
            looks[name] = dict(asked)
    loop.close()
    json.dump(looks, sys.stdout)


if __name__ == "__main__":
    main()
