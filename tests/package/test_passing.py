"""After install() asyncio's names look, copy, pickle and can be derived from as asyncio's own."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from asyncio import streams
from pathlib import Path

import pytest

LOOKS = Path(__file__).parents[1] / "helpers" / "looks.py"

CLASSES = (
    "BoundedSemaphore",
    "Condition",
    "Event",
    "LifoQueue",
    "Lock",
    "PriorityQueue",
    "Queue",
    "Semaphore",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "TaskGroup",
    "Timeout",
)
FUNCTIONS = (
    "as_completed",
    "create_subprocess_exec",
    "create_task",
    "ensure_future",
    "gather",
    "shield",
    "sleep",
    "timeout",
    "timeout_at",
    "wait",
    "wait_for",
)
# C in asyncio, too, and types of their own; what install() makes of asyncio's functions; and the
# loop and the policy, which look as what they are.
NOT_THESE = {
    "DefaultEventLoopPolicy",
    "EventLoop",
    "Future",
    "Task",
    "eager_task_factory",
}


def look(how):
    command = [sys.executable, LOOKS, how, *CLASSES, *FUNCTIONS]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@pytest.fixture(scope="module")
def looks():
    return look("asyncio"), look("install")


@pytest.mark.ctask_only
def test_all_that_install_replaces_is_looked_at():
    from ctask import _install

    names = {name for _, name, _ in _install._replacements(_install.DefaultPolicy)}
    assert {n for n in names if not n.startswith("_")} == {*CLASSES, *FUNCTIONS} | (
        NOT_THESE & names
    )


def is_known(name, ask):
    """What differs, and why."""
    # Three attributes that asyncio's __init__() sets, which are the class's here.
    if name == "Condition" and (ask == "dir" or "Mock: " in ask):
        return True
    # An event's flag reads back as a bool.
    if ask == "Event+Semaphore":
        return True
    # Both fail, as they refer to the loop.
    return name.startswith("Stream") and ask.startswith(("deepcopy", "pickle"))


@pytest.mark.ctask_only
@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
def test_looks_as_asyncios_own(looks, name):
    stock, ours = (answers[name] for answers in looks)
    asks = [ask for ask in {**stock, **ours} if not is_known(name, ask)]
    lines = (
        f"{ask}\n  asyncio: {stock.get(ask)}\n  ctask:   {ours.get(ask)}"
        for ask in asks
        if stock.get(ask) != ours.get(ask)
    )
    wrong = "\n".join(lines)
    assert not wrong, wrong
    assert len(asks) > 10


# ---- objects that are used afterwards, which have to be asyncio's in effect, too ----


@pytest.fixture(params=["ours", "stock"])
def kind(request):
    """The namespace of the classes: ctask's, which need no install(), or asyncio's."""
    if request.param == "stock":
        return asyncio
    return pytest.importorskip("ctask")


def filled(kind):
    queue = kind.Queue(3)
    for item in (1, 2):
        queue.put_nowait(item)
    return queue


@pytest.mark.parametrize(
    "make", [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))]
)
def test_a_copied_queue_goes_on(kind, run, make):
    queue = filled(kind)
    twin = make(queue)
    assert type(twin) is type(queue) and (twin.qsize(), twin.maxsize) == (2, 3)

    async def main():
        twin.put_nowait(3)
        assert twin.full()
        got = [await twin.get() for _ in range(3)]
        waiting = asyncio.ensure_future(twin.get())
        await asyncio.sleep(0)
        twin.put_nowait(4)
        assert [*got, await waiting] == [1, 2, 3, 4]
        for _ in range(4):
            twin.task_done()
        await twin.join()

    run(main())
    with pytest.raises(ValueError):
        twin.task_done()


def test_copied_locks_keep_their_state(kind, run):
    async def main():
        lock, event, places = kind.Lock(), kind.Event(), kind.Semaphore(3)
        await lock.acquire()
        event.set()
        await places.acquire()
        twins = copy.deepcopy((lock, event, places))
        assert twins[0].locked() and twins[1].is_set()
        lock.release()
        twins[0].release()
        await twins[0].acquire()
        waiting = asyncio.ensure_future(twins[0].acquire())
        await asyncio.sleep(0)
        twins[0].release()
        assert await waiting
        await twins[1].wait()
        await twins[2].acquire()
        await twins[2].acquire()
        assert twins[2].locked() and not places.locked()

    run(main())


def test_what_is_written_to_the_dictionary_counts(kind):
    event, queue, lock = kind.Event(), filled(kind), kind.Lock()
    vars(event)["_value"] = True
    assert event.is_set()
    vars(queue).update(_maxsize=2)
    assert queue.full()
    lock.__dict__ = {**vars(lock), "_locked": True, "colour": "red"}
    assert lock.locked() and lock.colour == "red"
    vars(lock)["locked"] = lambda: "perhaps"
    assert lock.locked() == "perhaps"


def test_what_was_only_looked_at_does_not_come_back(kind, run):
    """Not only its methods change an object: its coroutines do, a condition, a timer, a task."""

    def same(obj, attribute):
        assert vars(obj)[attribute] == getattr(obj, attribute)
        return getattr(obj, attribute)

    async def fail():
        raise ValueError

    async def main():
        lock, places, queue = kind.Lock(), kind.Semaphore(3), filled(kind)
        condition = kind.Condition(lock)
        timeout, group = kind.timeout(0.001), kind.TaskGroup()
        steps = [lock.acquire(), places.acquire(), queue.put(3)]
        for obj in (lock, places, queue, timeout, group):
            vars(obj)
        for step in steps:
            await step
        assert same(lock, "_locked") and same(places, "_value") == 2
        assert same(queue, "_unfinished_tasks") == 3

        vars(lock)
        condition.release()
        assert not same(lock, "_locked")
        vars(lock)
        await condition.acquire()
        assert same(lock, "_locked")

        with pytest.raises(TimeoutError):
            async with timeout:
                vars(timeout)
                await asyncio.sleep(10)
        assert timeout.expired()

        with pytest.raises(ExceptionGroup):
            async with group:
                group.create_task(fail())
                vars(group)
                await asyncio.sleep(10)
        assert not same(group, "_tasks")

    run(main())


def test_an_object_can_get_another_class(kind):
    class First(kind.Lock):
        pass

    class Second(kind.Lock):
        pass

    class Third(Second):
        def __init_subclass__(cls):
            pass  # and does not tell its base

    class Fourth(Third):
        pass

    lock = First()
    lock.number = 1
    for cls in (Second, First, Third, Second):
        lock.__class__ = cls
        lock.number += 1
        assert not lock.locked() and lock.number == vars(lock)["number"]
    assert lock.number == 5
    assert not Fourth().locked()


def test_classes_with_slots_and_other_bases_work_as_any(kind, run):
    class Mixin:
        pass

    class Slotted(kind.Lock):
        __slots__ = ("first", "second", "third")

    class Mixed(Mixin, kind.Lock):
        pass

    class Counted(kind.Lock, dict):
        pass

    class Both(kind.Lock, kind.Event):
        pass

    async def main(cls):
        lock, seen = cls(), []

        async def one(i):
            async with lock:
                seen.append(i)
                await asyncio.sleep(0)

        await asyncio.gather(*map(one, range(3)))
        assert seen == [0, 1, 2] and not lock.locked()
        await lock.acquire()
        task = asyncio.ensure_future(lock.acquire())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lock.release()
        with pytest.raises(RuntimeError, match="Lock is not acquired"):
            lock.release()

    for cls in (Slotted, Mixed, Counted, Both):
        run(main(cls))
    slotted = Slotted()
    slotted.first, slotted.second, slotted.third = 1, 2, 3
    assert (slotted.first, slotted.second, slotted.third) == (1, 2, 3)
    assert not slotted.locked()


@pytest.mark.ctask_only
def test_plain_objects_are_not_made_into_ones_with_a_core():
    from ctask import Lock, _ctask

    class Plain:
        pass

    plain = Plain()
    with pytest.raises(TypeError):
        plain.__class__ = Lock
    with pytest.raises(TypeError):
        object.__new__(Lock)
    with pytest.raises(TypeError):
        _ctask.Lock.__new__(Plain)
    with pytest.raises(TypeError):
        _ctask.Lock()

    class Bare(_ctask.Lock):
        __slots__ = ()

    with pytest.raises(AttributeError):
        Bare().locked()


PROGRAM = """
import asyncio, pickle, sys
if sys.argv[1] == "install":
    import ctask
    ctask.install()
if sys.argv[2] == "dump":
    queue, event, group = asyncio.PriorityQueue(), asyncio.Event(), asyncio.BoundedSemaphore(2)
    queue.put_nowait(2)
    queue.put_nowait(1)
    event.set()
    sys.stdout.buffer.write(pickle.dumps((queue, event, group, asyncio.Lock, asyncio.gather)))
else:
    queue, event, group, lock, gather = pickle.loads(sys.stdin.buffer.read())
    assert type(queue) is asyncio.PriorityQueue and lock is asyncio.Lock
    assert gather is asyncio.gather
    assert [queue.get_nowait(), queue.get_nowait()] == [1, 2]
    assert event.is_set() and not group.locked()
    try:
        group.release()
    except ValueError:
        print("loaded")
"""


@pytest.mark.ctask_only
@pytest.mark.parametrize("how", ["asyncio install", "install asyncio", "install install"])
def test_pickles_pass_between_asyncio_and_ctask(how):
    writer, reader = how.split()
    command = [sys.executable, "-c", PROGRAM]
    data = subprocess.run([*command, writer, "dump"], check=True, stdout=subprocess.PIPE).stdout
    loaded = subprocess.run([*command, reader, "load"], input=data, stdout=subprocess.PIPE)
    assert loaded.stdout == b"loaded\n"


@pytest.mark.ctask_only
def test_names_are_ours_again_after_uninstall():
    import ctask

    before = {cls: (cls.__module__, repr(cls)) for cls in (ctask.Lock, ctask.Queue)}
    ctask.install()
    try:
        assert repr(ctask.Lock) == "<class 'asyncio.locks.Lock'>"
        assert ctask.gather.__module__ == "asyncio.tasks"
        assert streams.StreamReader is ctask.StreamReader
        assert ctask.EventLoop.__module__ == "ctask._loop"
    finally:
        ctask.uninstall()
    assert before == {cls: (cls.__module__, repr(cls)) for cls in before}
    assert ctask.gather.__module__ == "ctask"


def guarded(kind):
    class Guarded(kind.Lock):
        tag = 1
        calls = ()

        def __setattr__(self, name, value):
            if not name.startswith("_"):
                self.__dict__["calls"] = (*self.calls, name)
            super().__setattr__(name, value)

        @property
        def owner(self):
            return self.__dict__.get("owner")

        def take(self, owner):
            self.__dict__["owner"] = owner

    return Guarded()


def test_a_property_may_keep_its_value_in_the_dictionary_under_its_own_name(kind):
    lock = guarded(kind)
    lock.take("me")
    assert not lock.locked()
    assert lock.owner == "me"


def test_setattr_is_not_called_for_what_is_in_the_dictionary_already(kind):
    lock = guarded(kind)
    lock.tag = 2
    vars(lock)
    assert not lock.locked()
    assert lock.calls == ("tag",)


def test_what_another_base_calls_its_own_stays_in_the_dictionary(kind):
    class Both(kind.Lock, kind.Queue):
        pass

    both = Both()
    names = ("_maxsize", "_getters", "_putters", "_queue", "_finished", "_unfinished_tasks")
    for name in names:
        vars(both)[name] = 7
    assert not both.locked()
    assert [getattr(both, name) for name in names] == [7] * len(names)
    assert not both.locked()
