"""What overrides a method of asyncio's takes what asyncio's method takes, on each version."""

import asyncio
import inspect
import os
from asyncio import selector_events, sslproto, unix_events
from inspect import Parameter

import pytest

# EventLoop polls in C, so there is no selector to give; __del__ is not called by hand.
ITS_OWN = {"EventLoop.__init__", "__del__"}

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@pytest.fixture
def pipe(loop, run, settle):
    """The transports of the two ends of a pipe."""
    protocols = asyncio.Protocol, asyncio.BaseProtocol
    files = [open(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]
    reader, _ = run(loop.connect_read_pipe(protocols[0], files[0]))
    writer, _ = run(loop.connect_write_pipe(protocols[1], files[1]))
    yield reader, writer
    reader.close()
    writer.abort()
    settle()


def overridden(impl, pipe):
    """(our class, method's name, asyncio's class) for all methods that asyncio's class has too."""
    from ctask import LifoQueue, PriorityQueue, Queue, _ctask

    pairs = [
        (impl.EventLoop, asyncio.SelectorEventLoop),
        (impl.Future, asyncio.Future),
        (impl.Task, asyncio.Task),
        (impl.Handle, asyncio.Handle),
        (impl.TimerHandle, asyncio.TimerHandle),
        (impl.StreamReader, asyncio.StreamReader),
        (impl.StreamReaderProtocol, asyncio.StreamReaderProtocol),
        (impl.StreamWriter, asyncio.StreamWriter),
        (Queue, asyncio.Queue),
        (PriorityQueue, asyncio.PriorityQueue),
        (LifoQueue, asyncio.LifoQueue),
        (_ctask.StreamTransport, selector_events._SelectorSocketTransport),
        (_ctask.DatagramTransport, selector_events._SelectorDatagramTransport),
        (type(pipe[0]), unix_events._UnixReadPipeTransport),
        (type(pipe[1]), unix_events._UnixWritePipeTransport),
        (_ctask.SSLProtocol, sslproto.SSLProtocol),
        (_ctask._SSLProtocolTransport, sslproto._SSLProtocolTransport),
    ]
    for ours, stock in pairs:
        own = [cls for cls in ours.__mro__ if cls not in stock.__mro__]
        names = {name for cls in own for name, value in vars(cls).items() if callable(value)}
        for name in sorted(names):
            method = getattr(stock, name, None)
            if ITS_OWN & {name, f"{ours.__name__}.{name}"}:
                continue
            if callable(method) and method is not getattr(object, name, None):
                yield ours, name, stock


def parameters(cls, name):
    """Without self; None if it cannot be told."""
    try:
        return list(inspect.signature(getattr(cls, name)).parameters.values())[1:]
    except ValueError:
        return None


def lacks(ours, stock, public):
    """What asyncio's parameters allow and ours do not, in words."""
    positional = [p for p in ours if p.kind in POSITIONAL]
    by_name = {p.name: p for p in ours if p.kind is not Parameter.POSITIONAL_ONLY}
    kinds = {p.kind for p in ours}
    used = set()
    for i, theirs in enumerate(stock):
        if theirs.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            if theirs.kind not in kinds:
                yield f"no {theirs}"
            continue
        mine = by_name.get(theirs.name)
        if theirs.kind in POSITIONAL:
            if i >= len(positional):
                if Parameter.VAR_POSITIONAL not in kinds:
                    yield f"{theirs.name} by position"
                continue
            if mine is not None and mine is not positional[i]:
                yield f"{theirs.name} in its place"
            by_keyword = theirs.kind is Parameter.POSITIONAL_OR_KEYWORD
            if mine is None and public and by_keyword and Parameter.VAR_KEYWORD not in kinds:
                yield f"{theirs.name} by keyword"
            mine = positional[i]
        elif mine is None:
            if Parameter.VAR_KEYWORD not in kinds:
                yield f"{theirs.name} by keyword"
            continue
        used.add(mine.name)
        if (mine.default is Parameter.empty) != (theirs.default is Parameter.empty):
            yield f"a default of {theirs.name}, or its lack"
        elif public and mine.default != theirs.default:
            yield f"{theirs}, not {mine}"
    for mine in ours:
        optional = mine.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if mine.name not in used and not optional and mine.default is Parameter.empty:
            yield f"{mine.name} is asked for"


@pytest.mark.ctask_only
def test_overrides_take_what_asyncios_methods_take(impl, pipe):
    seen = 0
    wrong = []
    for ours, name, stock in overridden(impl, pipe):
        # SSLProtocol is asyncio's affair: only transports call its methods.
        public = not name.startswith("_") and stock is not sslproto.SSLProtocol
        theirs = parameters(stock, name)
        mine = parameters(ours, name)
        if theirs is None:
            continue
        if mine is None:
            # Private methods of transports are there for asyncio's code, which calls them bare.
            if public:
                wrong.append(f"{ours.__name__}.{name}: has no signature")
            continue
        seen += 1
        wrong += [f"{ours.__name__}.{name}: {text}" for text in lacks(mine, theirs, public)]
    assert seen > 100
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "ours, stock, text",
    [
        (lambda a, b=1: 0, lambda a, b=1: 0, []),
        (lambda a, /: 0, lambda a: 0, ["a by keyword"]),
        (lambda b: 0, lambda a: 0, ["a by keyword"]),
        (lambda b, a: 0, lambda a, b: 0, ["a in its place", "b in its place"]),
        (lambda a: 0, lambda a, b=1: 0, ["b by position"]),
        (lambda a, b=2: 0, lambda a, b=1: 0, ["b=1, not b=2"]),
        (lambda a, b: 0, lambda a: 0, ["b is asked for"]),
        (lambda a, b: 0, lambda a, b=1: 0, ["a default of b, or its lack"]),
        (lambda a: 0, lambda a, *, b=1: 0, ["b by keyword"]),
        (lambda a, *, b=None: 0, lambda a, *, b=1: 0, ["b=1, not b=None"]),
        (lambda a: 0, lambda a, *b, **c: 0, ["no *b", "no **c"]),
        (lambda *b, **c: 0, lambda a, *, d=1: 0, []),
        (lambda a, b=1, *, c=2: 0, lambda a: 0, []),
    ],
)
def test_the_comparison_itself(ours, stock, text):
    ours, stock = (list(inspect.signature(f).parameters.values()) for f in (ours, stock))
    assert list(lacks(ours, stock, True)) == text


def test_single_arguments_by_keyword(loop, run, pipe):
    protocol = asyncio.Protocol()
    reader, writer = pipe
    datagrams, _ = run(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )
    for transport in (reader, writer, datagrams):
        transport.set_protocol(protocol=protocol)
        assert transport.get_protocol() is protocol
        for args, kwargs, text in [
            ((), {}, r"missing 1 required positional argument: 'protocol'"),
            ((1, 2), {}, "takes 2 positional arguments but 3 were given"),
            ((), {"x": 1}, "got an unexpected keyword argument 'x'"),
            ((1,), {"protocol": 1}, "got multiple values for argument 'protocol'"),
        ]:
            with pytest.raises(TypeError, match=rf"\.set_protocol\(\) {text}"):
                transport.set_protocol(*args, **kwargs)
    writer.write(data=b"")
    datagrams.abort()
