"""Fixtures for the behaviour tests.

Each test is written against `impl`: ctask by default, the standard library's asyncio with
CTASK_TESTS_ON=asyncio. Running both shows that a test states what asyncio does before it
asks ctask for the same. What only ctask has is marked `ctask_only`.

One fixture, `nothing_left_behind`, holds for every test: no descriptor, loop, task, future or
handle outlives it, nothing was raised where nobody could catch it, and every record that asyncio
logged was expected.
"""

from __future__ import annotations

import asyncio
import collections
import faulthandler
import functools
import gc
import importlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import streams
from helpers.command import command  # noqa: F401
from helpers.evil import stands  # noqa: F401
from helpers.namespaces import ns  # noqa: F401
from helpers.tls_peer import begin, session, shake, side, steps, way  # noqa: F401

# A checkout's ctask/ has no compiled module: tests are about the package that is installed.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INTEGRATION = Path(__file__).resolve().parent / "integration"
sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != ROOT]

NAMES = (
    "Future",
    "Task",
    "Handle",
    "TimerHandle",
    "EventLoop",
    "EventLoopPolicy",
    "Runner",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "run",
    "new_event_loop",
)
STOCK = os.environ.get("CTASK_TESTS_ON", "ctask") == "asyncio"


def stock_namespace() -> types.SimpleNamespace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = asyncio.DefaultEventLoopPolicy
    return types.SimpleNamespace(
        name="asyncio",
        Future=asyncio.Future,
        Task=asyncio.Task,
        Handle=asyncio.Handle,
        TimerHandle=asyncio.TimerHandle,
        EventLoop=asyncio.SelectorEventLoop,
        EventLoopPolicy=policy,
        Runner=asyncio.Runner,
        StreamReader=asyncio.StreamReader,
        StreamReaderProtocol=asyncio.StreamReaderProtocol,
        StreamWriter=asyncio.StreamWriter,
        run=asyncio.run,
        new_event_loop=asyncio.SelectorEventLoop,
    )


def ctask_namespace() -> types.SimpleNamespace:
    import ctask

    return types.SimpleNamespace(name="ctask", **{name: getattr(ctask, name) for name in NAMES})


IMPL = stock_namespace() if STOCK else ctask_namespace()
LIVING = (asyncio.Future, IMPL.Future, asyncio.Handle, IMPL.Handle, asyncio.AbstractEventLoop)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """All tests, with nothing said of how: by as many processes as there are cores (pytest-xdist).

    Some of them are run by one, which starts at once, and takes --pdb and -s.
    """
    if hasattr(config, "workerinput"):
        return  # is one of these processes
    if config.args_source is config.ArgsSource.TESTPATHS:
        if config.getoption("numprocesses", default=0) is None:
            config.option.numprocesses = "auto"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    # A shell ignores it for what runs in the background, which programs that tests start inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Real programs need more than pytest: they are run if they are asked for (tools/integration).
    if collection_path != INTEGRATION:
        return None
    asked = [Path(arg.partition("::")[0]).resolve() for arg in config.args]
    return not any(path.is_relative_to(INTEGRATION) for path in asked)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if STOCK:
        for item in items:
            if item.get_closest_marker("ctask_only"):
                item.add_marker(pytest.mark.skip(reason="about ctask itself"))


def pytest_report_header() -> str:
    return f"tests on: {IMPL.name}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


PASSED: pytest.StashKey[bool] = pytest.StashKey()


class Taken(list):
    """A list that must be empty at the end: `take` returns the entries and empties it."""

    def take(self) -> list:
        entries = self[:]
        self.clear()
        return entries


class LogCatcher(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: Taken = Taken()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def open_fds() -> dict[int, str]:
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # listdir's own
            pass
    return fds


def living() -> list[object]:
    # type(), not isinstance(): an object's __class__ may be a test's property.
    return [o for o in gc.get_objects() if issubclass(type(o), LIVING)]


@pytest.fixture(scope="session")
def older_objects() -> Iterator[None]:
    """Each test has what was there before it frozen; in the end it is not."""
    yield
    gc.unfreeze()


@pytest.fixture
def logs() -> Iterator[Taken]:
    """The log records (warning and above) of logger 'asyncio'; a test takes what it expects."""
    catcher = LogCatcher()
    logger = logging.getLogger("asyncio")
    logger.addHandler(catcher)
    yield catcher.records
    logger.removeHandler(catcher)


@pytest.fixture
def unraisable() -> Iterator[Taken]:
    """Exceptions that no caller could catch (type, message); a test takes what it expects."""
    caught: Taken = Taken()
    saved = sys.unraisablehook, threading.excepthook

    def hook(args) -> None:  # keeps no exception, so no frame and no object, alive
        caught.append((args.exc_type, str(args.exc_value)))

    sys.unraisablehook = threading.excepthook = hook
    yield caught
    sys.unraisablehook, threading.excepthook = saved


@pytest.fixture(scope="session")
def put_off() -> Iterator[Callable[..., None]]:
    """Calling it puts off the end of the process, for 150 s at least, or as long as is said.

    That takes a thread, so it is not begun anew for each of thousands of tests.
    """
    last = -math.inf  # when it has to be put off again

    def put_off(seconds: int = 150) -> None:
        nonlocal last
        if seconds > 150 or time.monotonic() > last:
            last = time.monotonic() + 50
            faulthandler.dump_traceback_later(seconds + 50, exit=True)

    yield put_off
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def time_limit(request, put_off: Callable[..., None]) -> Iterator[None]:
    """A test that hangs fails; one that does not even answer signals ends the run.

    On a machine that does much else a test takes fifty times as long as on an idle one.
    """
    seconds = 600 if request.node.get_closest_marker("slow") else 120

    def stuck(signum, frame):
        raise TimeoutError("the test hangs")

    saved = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(seconds)
    put_off(seconds + 30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, saved)


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request, older_objects, time_limit, caplog, logs, unraisable
) -> Iterator[None]:
    gc.collect()
    # What is there is not looked at again, by what collects and by living(): there are more of
    # pytest's objects with each test.
    gc.freeze()
    fds = open_fds()
    threads = threading.active_count()
    yield
    if not request.node.stash.get(PASSED, False):
        gc.collect()  # the failure's traceback keeps things alive: its own report is enough
        logs.clear()
        unraisable.clear()
        return
    # pytest's own references to the loop and to what was made from it or logged
    request.node.funcargs.clear()
    for when in ("setup", "call"):
        caplog.get_records(when).clear()
    for _ in range(3):  # what has been finalized may be gone with the next one only
        gc.collect()
        left = living()
        if not left:
            break
    assert not left, f"alive after the test: {left}"
    del left
    assert open_fds() == fds
    assert threading.active_count() == threads
    assert unraisable == []
    assert [record.getMessage() for record in logs] == []


@pytest.fixture
def impl() -> types.SimpleNamespace:
    return IMPL


def primitive(name: str) -> Callable:
    """A fixture of this name: asyncio's function or class, or ctask's."""

    @pytest.fixture(name=name)
    def found(impl):
        return getattr(importlib.import_module(impl.name), name)

    return found


async def turns(n, result=None):
    for _ in range(n):
        await asyncio.sleep(0)
    return result


@pytest.fixture
def loop(impl, nothing_left_behind) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of the implementation under test. It must end without pending tasks."""
    loop = impl.new_event_loop()
    loop.set_debug(False)
    loop.slow_callback_duration = 3600  # in debug mode nothing is to be logged on a slow machine
    yield loop
    if not loop.is_closed():
        gc.collect()
        pending = asyncio.all_tasks(loop)
        loop.close()
        assert not pending
    asyncio.set_event_loop(None)


@pytest.fixture
def run(loop) -> Callable:
    """Runs a coroutine or future on `loop` and returns its result."""
    return loop.run_until_complete


@pytest.fixture
def turn(loop) -> Callable[..., None]:
    """Runs n iterations of `loop`: all callbacks that are ready, not the ones they schedule."""

    def turn(n: int = 1) -> None:
        for _ in range(n):
            loop.stop()
            loop.run_forever()

    return turn


@pytest.fixture
def reports(loop) -> Iterator[Taken]:
    """What reached the loop's exception handler; a test takes what it expects."""
    contexts: Taken = Taken()
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    yield contexts
    assert contexts == []


Outcome = collections.namedtuple("Outcome", "code out err")

PRELUDE = """\
import asyncio, gc, sys, warnings
STOCK = {stock!r}
if STOCK:
    import types
    impl = types.SimpleNamespace(
        Future=asyncio.Future, Task=asyncio.Task, Handle=asyncio.Handle,
        TimerHandle=asyncio.TimerHandle, EventLoop=asyncio.SelectorEventLoop,
        Runner=asyncio.Runner, StreamReader=asyncio.StreamReader,
        StreamReaderProtocol=asyncio.StreamReaderProtocol, StreamWriter=asyncio.StreamWriter,
        run=asyncio.run, new_event_loop=asyncio.SelectorEventLoop)
else:
    import ctask as impl
"""


@pytest.fixture
def no_zombies():
    """No child is left that nobody waited for."""
    yield
    gc.collect()
    subprocess._cleanup()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def script(tmp_path) -> Callable[..., Outcome]:
    """Runs pieces of source text in an interpreter of its own, with `impl` there unless bare=True.

    Returns (code, out, err). Fails the test if the interpreter crashed, or ended with anything
    but `code` (None: any code that is not a signal's).
    """

    def script(*source: str, bare: bool = False, code: int | None = 0, timeout: float = 100):
        prelude = "" if bare else PRELUDE.format(stock=STOCK)
        path = tmp_path / "script.py"
        path.write_text(prelude + "".join(map(textwrap.dedent, source)))
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", str(path)],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        text = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode >= 0, text
        if code is not None:
            assert done.returncode == code, text
        return Outcome(done.returncode, done.stdout, done.stderr)

    return script


RESIDENT = """
import os

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
"""


@pytest.fixture
def memory_goes_back() -> None:
    """What is freed can go back to the system."""
    if "libasan" in Path("/proc/self/maps").read_text():
        pytest.skip("AddressSanitizer keeps what is freed")


@pytest.fixture
def memory_script(script: Callable[..., Outcome], memory_goes_back: None) -> Callable[..., Outcome]:
    """As script(), with resident() there: the memory that the process occupies, in bytes."""
    return functools.partial(script, RESIDENT)


@pytest.fixture
def until(turn) -> Callable[[Callable[[], object]], None]:
    """Runs iterations of `loop` until a condition holds; the test's time limit ends it."""

    def until(condition: Callable[[], object]) -> None:
        while not condition():
            turn()

    return until


@pytest.fixture
def settle(turn) -> Callable[[], None]:
    """Runs more iterations than anything that is under way in `loop` takes: nothing may follow."""
    return lambda: turn(8)


@pytest.fixture(params=["impl", "stock", "subclass"])
def make_future(request, impl, loop) -> Callable:
    """Futures of ours, of asyncio's own, and of a subclass."""

    class Sub(impl.Future):
        pass

    return {
        "impl": lambda: impl.Future(loop=loop),
        "stock": lambda: asyncio.Future(loop=loop),
        "subclass": lambda: Sub(loop=loop),
    }[request.param]


@pytest.fixture
def start(loop, turn) -> Callable:
    """A task that is waiting."""

    def start(coro):
        task = loop.create_task(coro)
        turn()
        assert not task.done()
        return task

    return start


@pytest.fixture
def installed(impl) -> Iterator[None]:
    """asyncio's names are ctask's meanwhile."""
    if impl.name == "asyncio":
        yield
        return
    import ctask

    ctask.install()
    yield
    ctask.uninstall()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected stream sockets that do not block."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture(params=["unix", "tcp"])
def link(request, loop, run, settle) -> Iterator[Callable]:
    """link(protocol) -> (transport, the peer's non-blocking socket): a stream of `loop`.

    Once over a Unix and once over a TCP socket.  What is still open at the end is aborted.
    """
    made = []

    def link(protocol):
        ours, peer = streams.make_pair(request.param)
        made.append((None, ours, peer))
        transport, _ = run(loop.create_connection(lambda: protocol, sock=ours))
        made[-1] = (transport, ours, peer)
        return transport, peer

    link.kind = request.param
    yield link
    for transport, ours, peer in made:
        peer.close()
        if transport is None:
            ours.close()
        elif not loop.is_closed() and transport.get_protocol() is not None:
            transport.abort()
    if not loop.is_closed():
        settle()
