"""Puts the candidate in place of `_asyncio` (layer tasks) or of the event loop (layer loop).

Runs in the child, before any test module is imported, and verifies that the replacement holds:
a candidate that cannot be put in place ends the run, it is never measured by half.  A name
that the candidate lacks becomes a stub that raises, never CPython's own function.
"""

import importlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any

# The name -> kind ("type", "function", "object") of all that this interpreter's `_asyncio` has.
Api = dict[str, str]
Info = dict[str, Any]

STOCK = ("asyncio", "pure", "pure-as-c")


class CannotInstall(Exception):
    """The candidate could not be put in place."""


def make_stub(candidate: str, name: str, kind: str) -> Any:
    """Stand-in for a name that the candidate lacks."""
    message = f"candidate {candidate!r} lacks {name!r}"

    def refuse(*args: object, **kwargs: object) -> Any:
        raise NotImplementedError(message)

    if kind == "type":
        return type(name, (), {"__new__": refuse, "__conformance_stub__": 1})
    if kind == "function":
        refuse.__name__ = refuse.__qualname__ = name
        return refuse
    specials = ("__getattr__", "__iter__", "__len__", "__getitem__", "__contains__", "__bool__")
    return type("Stub", (), dict.fromkeys(specials, refuse))()


def build_facade(candidate: str, source: Any, api: Api) -> tuple[Any, list[str]]:
    """A module to be used as `_asyncio`, and the names in it that are stubs."""
    missing = [name for name in api if not hasattr(source, name)]
    if not missing:
        return source, []
    facade = types.ModuleType("_asyncio")
    for name in dir(source):
        if not (name.startswith("__") and name.endswith("__")):
            setattr(facade, name, getattr(source, name))
    # Not all that a module's __getattr__ answers for is in its dir().
    for name, kind in api.items():
        stub = name in missing
        setattr(facade, name, make_stub(candidate, name, kind) if stub else getattr(source, name))
    return facade, missing


def api_name(alias: str, api: Api) -> str | None:
    """`_py_register_task` -> `_register_task`, `_PyTask` -> `Task`, ..."""
    for prefix in ("_py_", "_Py"):
        if alias.startswith(prefix):
            rest = alias[len(prefix) :]
            for name in (rest, "_" + rest):
                if name in api:
                    return name
    return None


def asyncio_modules() -> list[types.ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if module is not None and (name == "asyncio" or name.startswith("asyncio."))
    ]


def bind_accelerator(facade: Any, stock: Any, api: Api) -> None:
    """Do late what asyncio does when it imports `_asyncio`.

    For when asyncio is already there (the candidate imports it itself).
    """
    swap: dict[int, tuple[Any, Any]] = {}  # id(old object) -> (old object, new one)
    for module in asyncio_modules():
        names = vars(module)
        if names.get("_asyncio") is not None:
            names["_asyncio"] = facade
        for name in list(names):
            plain = api_name(name, api)
            if plain is None:
                continue
            alias = re.sub("^_py_", "_c_", re.sub("^_Py", "_C", name))
            for other in (plain, alias):
                if other in names:
                    swap[id(names[other])] = (names[other], getattr(facade, plain))
                setattr(module, other, getattr(facade, plain))
    if stock is not None:
        for name in api:
            swap[id(getattr(stock, name))] = (getattr(stock, name), getattr(facade, name))
    tasks: Any = sys.modules["asyncio.tasks"]
    if hasattr(tasks, "create_eager_task_factory"):
        eager = tasks.create_eager_task_factory(facade.Task)
        swap[id(tasks.eager_task_factory)] = (tasks.eager_task_factory, eager)
    for module in asyncio_modules():
        for name, value in list(vars(module).items()):
            # The pure-Python originals keep their _py_ and _Py names.
            if id(value) in swap and not name.startswith(("_py_", "_Py")):
                setattr(module, name, swap[id(value)][1])
    sys.modules["_asyncio"] = facade


def import_candidate(candidate: str) -> Any:
    try:
        return importlib.import_module(candidate)
    except Exception as exc:
        raise CannotInstall(f"cannot import {candidate!r}: {type(exc).__name__}: {exc}") from exc


def import_pure(candidate: str, api: Api) -> Any:
    """asyncio without its accelerator; for pure-as-c, a module that offers it as one."""
    sys.modules["_asyncio"] = None  # type: ignore[assignment]
    asyncio: Any = importlib.import_module("asyncio")
    if candidate == "pure":
        if asyncio.Task is not asyncio.tasks._PyTask:
            raise CannotInstall("asyncio.Task is not the pure-Python one")
        return None
    source = types.ModuleType("pure_as_c")
    for module in (asyncio.events, asyncio.futures, asyncio.tasks):
        for name, value in list(vars(module).items()):
            plain = name if name in api else api_name(name, api)
            if plain is not None and not hasattr(source, plain):
                setattr(source, plain, value)
    return source


def verify_tasks(facade: Any, candidate: str, api: Api) -> None:
    """Is it really in place?"""
    import asyncio

    checks: list[tuple[Any, str, str]] = [
        (asyncio, "Future", "Future"),
        (asyncio, "Task", "Task"),
        (asyncio.futures, "_CFuture", "Future"),
        (asyncio.futures, "Future", "Future"),
        (asyncio.tasks, "_CTask", "Task"),
        (asyncio.tasks, "Task", "Task"),
    ]
    for module in (asyncio.events, asyncio.futures, asyncio.tasks):
        for alias in list(vars(module)):
            name = api_name(alias, api)
            if name is not None and alias.startswith("_py_"):
                checks.append((module, "_c_" + alias[4:], name))
                checks.append((module, name, name))
    wrong = {
        f"{module.__name__}.{attr}"
        for module, attr, name in checks
        if getattr(module, attr, None) is not getattr(facade, name)
    }
    futures: Any = asyncio.futures
    if futures._PyFuture is facade.Future and candidate != "pure-as-c":
        wrong.add("asyncio.futures._PyFuture")
    if wrong:
        raise CannotInstall("not in place: " + ", ".join(sorted(wrong)))


def install_tasks(candidate: str, api: Api) -> Info:
    """Put the candidate in place of `_asyncio`; a description of how it was done."""
    if "asyncio" in sys.modules or (
        "_asyncio" in sys.modules and "_asyncio" not in sys.builtin_module_names
    ):
        raise CannotInstall("asyncio was imported before the candidate")
    info: Info = {"missing": [], "how": "stock"}
    if candidate == "asyncio":
        import asyncio

        if asyncio.Task.__module__ != "_asyncio":
            raise CannotInstall("this interpreter has no _asyncio")
        return info
    stock = None
    early = False
    if candidate in ("pure", "pure-as-c"):
        source = import_pure(candidate, api)
        if source is None:
            info["how"] = "no accelerator"
            return info
    else:
        source = import_candidate(candidate)
        early = "asyncio" not in sys.modules
        stock = None if early else importlib.import_module("_asyncio")
    facade, info["missing"] = build_facade(candidate, source, api)
    if early:
        sys.modules["_asyncio"] = facade
        info["how"] = "before asyncio was imported"
    else:
        bind_accelerator(facade, stock, api)
        info["how"] = "rebound (the candidate imports asyncio itself)"
    verify_tasks(facade, candidate, api)
    return info


def call_install(candidate: str) -> None:
    """Layer installed: what the candidate's install() replaces, too."""
    if candidate in STOCK:
        return
    module = import_candidate(candidate)
    if not hasattr(module, "install"):
        raise CannotInstall(f"{candidate!r} has no install()")
    module.install()


class LoopCounter:
    made = 0  # loops that the candidate made, in all


def install_loop(candidate: str) -> tuple[Info, Callable[[], Any]]:
    """Patch every way in which the tests make an event loop; the factory put there."""
    import asyncio
    from asyncio import unix_events

    info: Info = {"missing": [], "how": "new_event_loop patched in"}
    make: Callable[[], Any]
    if candidate in STOCK:
        make = unix_events._UnixSelectorEventLoop
    else:
        module = import_candidate(candidate)
        if hasattr(module, "new_event_loop"):
            make = module.new_event_loop
        else:
            info["missing"] = ["new_event_loop"]
            make = make_stub(candidate, "new_event_loop", "function")
    made_types: set[type] = set()

    def factory() -> Any:
        loop = make()
        LoopCounter.made += 1
        made_types.add(type(loop))
        return loop

    class LoopShimType(type):
        # Stands for the class asyncio.SelectorEventLoop: called, with or without a selector, it
        # makes a loop; isinstance() knows those loops.
        def __call__(cls, selector: Any = None) -> Any:
            if selector is not None:
                selector.close()
            return factory()

        def __instancecheck__(cls, obj: object) -> bool:
            return type(obj) in made_types

    class SelectorEventLoop(metaclass=LoopShimType):
        pass

    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, SelectorEventLoop)
    for cls in vars(unix_events).values():
        if isinstance(cls, type) and "_loop_factory" in vars(cls):
            cls._loop_factory = staticmethod(factory)  # type: ignore[attr-defined]
    if not info["missing"]:
        before = LoopCounter.made
        loop = asyncio.new_event_loop()
        if LoopCounter.made != before + 1:
            raise CannotInstall("asyncio.new_event_loop() is not the candidate's")
        info["type"] = f"{type(loop).__module__}.{type(loop).__qualname__}"
        loop.close()
        LoopCounter.made = 0
    adapt_test_utils()
    return info, factory


# ---- adaptations of the tests themselves: they only ever loosen what is private ----


def adapt_test_utils() -> None:
    """utils.TestCase.close_loop reads loop._default_executor, which is private."""
    utils: Any = importlib.import_module("test.test_asyncio.utils")
    old_close = utils.TestCase.close_loop

    def close_loop(loop: Any) -> None:
        if hasattr(loop, "_default_executor"):
            old_close(loop)
            return
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    utils.TestCase.close_loop = staticmethod(close_loop)


def set_no_event_loop(name: str) -> None:
    """GenericWatcherTests wants set_event_loop() to have been called, by tests that are excluded
    or run in other processes here.
    """
    if name == "test_subprocess":
        import asyncio

        asyncio.set_event_loop(None)


def adapt_test_module(name: str, module: Any, factory: Callable[[], Any]) -> None:
    """Layer loop: swap the mock loop that a test makes for a real one."""
    import asyncio

    if name == "test_runners":
        module.BaseTest.new_loop = lambda self: recording_loop(factory())
    if name in ("test_events", "test_streams") and hasattr(asyncio, "SafeChildWatcher"):
        # Until 3.13 UnixEventLoopTestsMixin.setUp and test_streams attach a SafeChildWatcher to
        # the loop, which takes over its SIGCHLD.  That is CPython's way of waiting for
        # children, other loops have their own.  Use the watcher that leaves the loop alone
        # (3.11's default).
        from asyncio import unix_events

        for mod in (asyncio, unix_events):
            mod.SafeChildWatcher = asyncio.ThreadedChildWatcher  # type: ignore[attr-defined]
    if name == "test_pep492":
        # BaseTest.setUp: a stock BaseEventLoop with a mock selector.
        def set_up(self: Any) -> None:
            super(module.BaseTest, self).setUp()
            self.loop = factory()
            self.set_event_loop(self.loop)

        module.BaseTest.setUp = set_up


def recording_loop(loop: Any) -> Any:
    """The loop for test_runners, which notes the call of shutdown_asyncgens.

    BaseTest.new_loop there makes a stock BaseEventLoop with a mock selector and a mock
    shutdown_asyncgens.  This is the candidate's loop, with an attribute or else by a subclass.
    """
    real = loop.shutdown_asyncgens

    async def shutdown_asyncgens() -> None:
        loop.shutdown_ag_run = True
        await real()

    try:
        loop.shutdown_ag_run = False
        loop.shutdown_asyncgens = shutdown_asyncgens
        return loop
    except AttributeError:
        loop.close()

    class Recording(type(loop)):  # type: ignore[misc]
        shutdown_ag_run = False

        async def shutdown_asyncgens(self) -> None:
            self.shutdown_ag_run = True
            await super().shutdown_asyncgens()

    return Recording()
