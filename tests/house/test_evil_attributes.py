"""Private attributes deleted or replaced in the midst of things: an exception or nothing."""

import _asyncio
import asyncio
import collections
import contextlib
import gc
import socket
import sys

import pytest

pytestmark = pytest.mark.usefixtures("installed")


def ignore(loop, context):
    pass


@pytest.mark.ctask_only
def test_a_core_for_another():
    import itertools

    from ctask import _ctask

    names = [
        "Lock",
        "Event",
        "Semaphore",
        "Condition",
        "Queue",
        "TaskGroup",
        "Timeout",
        "StreamReader",
    ]
    for first, second in itertools.permutations(names, 2):
        cls = type("cls", (getattr(_ctask, first),), {})
        obj = cls.__new__(cls)
        with pytest.raises(TypeError):
            cls.__bases__ = (getattr(_ctask, second),)
        repr(obj)


MADE_TWICE = """
made = []

class Evil(asyncio.Event):
    def __init__(self):
        super().__init__()
        if not made:
            made.append(1)
            attempt(look)
    def __del__(self):
        attempt(drop)

class Lock(asyncio.Lock):
    def __getattribute__(self, name):
        if name == "locked" and not made:
            made.append(1)
            attempt(look)
        value = super().__getattribute__(name)
        return Bound(value) if name == "locked" else value

class Bound:
    def __init__(self, value):
        self.value = value
    def __del__(self):
        attempt(drop)

def attempt(function):
    try:
        function()
    except Exception:
        pass
"""


@pytest.mark.parametrize(
    "subject, look, drop",
    [
        ("asyncio.Queue()", "subject._finished", "subject.__init__()"),
        ("asyncio.Queue()", "subject._getters", "subject.__init__()"),
        ("asyncio.Condition(Lock())", "subject.locked", "del subject.locked"),
    ],
)
def test_a_lazy_attribute_is_dropped_while_it_is_made(script, subject, look, drop):
    done = script(
        "if not STOCK: impl.install()\n",
        MADE_TWICE,
        f"""
        def look():
            {look}

        def drop():
            {drop}

        subject = {subject}
        asyncio.locks.Event = Evil
        for _ in range(3):
            attempt(look)
            attempt(drop)
        print("stands")
        """,
    )
    assert done.out == "stands\n"


@pytest.mark.ctask_only  # asyncio makes it at once
def test_the_event_of_join_is_asked_for_while_it_is_made(monkeypatch):
    class Event(asyncio.Event):
        def __init__(self):
            super().__init__()
            if not asked:
                asked.append(None)
                asked[0] = queue._finished

    asked = []
    queue = asyncio.Queue()
    monkeypatch.setattr(asyncio.locks, "Event", Event)
    assert queue._finished is asked[0] is queue._finished


@pytest.mark.parametrize("what", ["_getters", "_putters", "_children", "_extra"])
def test_a_collection_asks_for_what_is_being_made(run, loop, what):
    """Up to 3.11 memory that is asked for may start one."""

    class Last:
        def __init__(self):
            self.self = self

        def __del__(self):
            asked.append(getattr(obj, what))

    async def make():
        if what == "_extra":
            return loop._make_socket_transport(ours, asyncio.Protocol())
        return asyncio.gather(loop.create_future()) if what == "_children" else asyncio.Queue()

    ours, theirs = socket.socketpair()
    obj = run(make())
    asked = []
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    Last()
    gc.set_threshold(1)
    gc.enable()
    try:
        asked.append(getattr(obj, what))
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert asked[0] is asked[1] is getattr(obj, what)
    if what == "_extra":
        obj.abort()
        run(asyncio.sleep(0))
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "kind, items, others",
    [("Queue", collections.deque([1]), 5), ("LifoQueue", [1], collections.deque())],
)
def test_items_are_replaced_when_the_queue_asks_for_their_number(kind, items, others):
    class Items:
        def __len__(self):
            queue._queue = items
            queue.qsize()
            queue._queue = others
            return length

    queue = getattr(asyncio, kind)(1)
    for method, args, length in (("get_nowait", (), 1), ("put_nowait", (1,), 0)):
        queue._queue = Items()
        with contextlib.suppress(AttributeError, IndexError):
            getattr(queue, method)(*args)


def test_the_size_of_a_queue_is_replaced_while_it_is_initialised():
    class Init:
        def __get__(self, queue, cls):
            queue._maxsize = 0
            gc.collect()
            return sizes.append

    class Queue(asyncio.Queue):
        _init = Init()

    class Last:
        def __del__(self):
            queue._maxsize = object()

    sizes = []
    queue = Queue.__new__(Queue)
    queue._getters = Last()
    queue.__init__(7)
    assert sizes == [7]


class Twin:
    """Looks like the task to a set that looks for it, and is asked whether it is."""

    def __init__(self, number, asked):
        self.number, self.asked = number, asked

    def __hash__(self):
        return self.number

    def __eq__(self, other):
        if self is not other and self.asked:
            self.asked.pop()()
        return False


@pytest.mark.parametrize("end", ["result", "exception"])
@pytest.mark.parametrize("spoil", ["set()", "None", "deleted"])
def test_the_set_of_a_group_goes_when_it_is_looked_into(run, loop, end, spoil):
    async def ends():
        if end == "exception":
            raise ValueError

    def spoils():
        if spoil == "deleted":
            del group._tasks
        else:
            group._tasks = None if spoil == "None" else set()

    async def main():
        await group.__aenter__()
        task = asyncio.ensure_future(ends())
        await asyncio.wait([task])
        task.exception()
        group._tasks.add(Twin(hash(task), [spoils]))
        with contextlib.suppress(AttributeError, TypeError):
            group._on_task_done(task)

    group = asyncio.TaskGroup()
    loop.set_exception_handler(ignore)
    with contextlib.suppress(asyncio.CancelledError):
        run(main())


@pytest.mark.parametrize("spoil", ["set()", "deleted"])
def test_the_set_of_a_group_goes_when_a_task_comes(run, loop, spoil):
    def spoils():
        if spoil == "deleted":
            del group._tasks
        else:
            group._tasks = set()
        seen.append(spoil)

    async def main():
        await group.__aenter__()
        for _ in range(20):  # until one is where the one before was
            task = group.create_task(asyncio.sleep(0))
            number = hash(task)
            await task
            del task
            await asyncio.sleep(0)
            group._tasks.add(Twin(number, [spoils]))
            with contextlib.suppress(AttributeError):
                await group.create_task(asyncio.sleep(0))
            if seen:
                break
            group._tasks = set()

    seen = []
    group = asyncio.TaskGroup()
    loop.set_exception_handler(ignore)
    run(main())


@pytest.mark.ctask_only  # asyncio's crashes up to 3.13
@pytest.mark.parametrize("pair", [5, ()])
def test_what_is_written_to_the_list_of_callbacks_while_somebody_waits(run, loop, pair):
    async def main():
        fut = loop.create_future()
        fut.add_done_callback(print)
        fut.add_done_callback(repr)
        fut.remove_done_callback(print)
        waiting = asyncio.ensure_future(asyncio.wait([fut]))
        await asyncio.sleep(0)
        shown = _asyncio.Future._callbacks.__get__(fut)
        shown.append(pair)
        waiting.cancel()
        await asyncio.wait([waiting])
        shown.clear()
        fut.cancel()

    run(main())


def test_as_many_unfinished_tasks_as_there_can_be(impl):
    queue = asyncio.Queue()
    queue._unfinished_tasks = sys.maxsize
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert queue.qsize() == 2


GROUP = ["_loop", "_parent_task", "_tasks", "_errors", "_base_error", "_on_completed_fut"]


@pytest.mark.parametrize("name", GROUP)
@pytest.mark.parametrize("when", ["before", "in a task", "in its name"])
@pytest.mark.parametrize("value", [None, 5, "deleted"])
def test_a_group_without(run, loop, name, when, value):
    def spoil():
        try:
            if value == "deleted":
                delattr(group, name)
            else:
                setattr(group, name, value)
        except (AttributeError, TypeError):
            pass

    async def spoils():
        spoil()

    class Name:
        def __str__(self):
            spoil()
            return "name"

    async def main():
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await group.__aenter__()
            tasks.append(group.create_task(spoils() if when == "in a task" else asyncio.sleep(0)))
            leaving = group.__aexit__(None, None, None)
            if when == "before":
                spoil()
            if when == "in its name":
                coro = asyncio.sleep(0)
                try:
                    tasks.append(group.create_task(coro, name=Name()))
                finally:
                    coro.close()
            await asyncio.wait_for(leaving, 0.1)
        with contextlib.suppress(Exception):
            leaving.close()

    tasks = []
    group = asyncio.TaskGroup()
    loop.set_exception_handler(ignore)
    with contextlib.suppress(asyncio.CancelledError):
        run(main())
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            run(asyncio.wait([task]))
    gc.collect()


TIMEOUT = ["_state", "_timeout_handler", "_task", "_when", "_cancelling"]


@pytest.mark.parametrize("name", TIMEOUT)
@pytest.mark.parametrize("state", [None, "CREATED", "ENTERED", "EXPIRING", "EXPIRED"])
@pytest.mark.parametrize("end", ["result", "exception", "cancel", "timeout", "dropped"])
def test_a_wait_whose_timeout_lacks(run, loop, unraisable, name, state, end):
    async def main():
        fut = asyncio.get_running_loop().create_future()
        coro = asyncio.wait_for(fut, 0.001 if end == "timeout" else 1000)
        task = asyncio.ensure_future(coro)
        await asyncio.sleep(0)
        timeout = timeouts(loop)
        if timeout is not None:
            if state is not None:
                timeout._state = getattr(asyncio.timeouts._State, state)
            with contextlib.suppress(AttributeError):
                delattr(timeout, name)
        if end == "result":
            fut.set_result(None)
        elif end == "exception":
            fut.set_exception(ValueError())
        elif end == "cancel":
            task.cancel()
        elif end == "dropped":
            with contextlib.suppress(Exception):
                coro.close()
            task.cancel()
        await asyncio.wait([task], timeout=0.01)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        fut.cancel()
        for handle in loop._scheduled:
            handle.cancel()

    def timeouts(loop):
        for handle in loop._scheduled:
            owner = getattr(handle._callback, "__self__", None)
            if isinstance(owner, asyncio.Timeout):
                return owner
        return None

    loop.set_exception_handler(ignore)
    run(main())
    gc.collect()
    unraisable.clear()


def test_a_timeout_loses_its_deadline_while_it_is_entered(run, loop):
    class Strange:
        def cancelling(self):
            del timeout._when
            return 0

    async def main():
        nonlocal timeout
        timeout = asyncio.timeout(10)
        me = asyncio.current_task()
        strange = Strange()
        asyncio.tasks._leave_task(loop, me)
        asyncio.tasks._enter_task(loop, strange)
        try:
            with contextlib.suppress(AttributeError):
                timeout.__aenter__().send(None)
        except StopIteration:
            pass
        finally:
            asyncio.tasks._leave_task(loop, strange)
            asyncio.tasks._enter_task(loop, me)
        timeout = None
        for handle in loop._scheduled:
            handle.cancel()

    timeout = None
    run(main())


@pytest.mark.parametrize("answer", [True, False, KeyError])
def test_a_gather_whose_flag_is_anything(run, loop, answer):
    class Flag:
        def __bool__(self):
            with contextlib.suppress(AttributeError):
                del outer._cancel_requested
            gc.collect()
            if isinstance(answer, bool):
                return answer
            raise answer

    class Children:
        def __iter__(self):
            outer._children = []
            gc.collect()
            return iter(())

    async def main():
        nonlocal outer
        child = loop.create_future()
        outer = asyncio.gather(child)
        with contextlib.suppress(AttributeError):
            del outer._children
        outer._children = Children()
        outer.cancel()
        outer._cancel_requested = Flag()
        child.set_result(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if outer.done() and not outer.cancelled():
            outer.exception()
        outer = None

    outer = None
    loop.set_exception_handler(ignore)
    run(main())


def test_a_handle_loses_its_traceback_while_it_is_reported(loop, turn):
    class Evil:
        def __bool__(self):
            del handle._source_traceback
            gc.collect()
            return True

    class Wrong:
        def __bool__(self):
            raise KeyError(1)

    def fails():
        raise ValueError

    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    handle = loop.call_soon(fails)
    handle._source_traceback = Evil()
    with contextlib.suppress(AttributeError):  # asyncio looks a second time
        turn()
    loop.call_soon(fails)._source_traceback = Wrong()
    with pytest.raises(KeyError):
        turn()
    assert all(isinstance(report["exception"], ValueError) for report in reports)


def test_the_clock_cancels_the_timers(impl):
    class Loop(impl.EventLoop):
        armed = False

        def time(self):
            if self.armed:
                for handle in timers:
                    handle.cancel()
                timers.clear()
            return super().time()

    timers = []
    loop = Loop()
    timers += [loop.call_later(1000, print) for _ in range(3)]
    loop.armed = True
    ready = loop.create_future()
    loop._write_to_self()  # or it would wait for ever
    loop.call_soon_threadsafe(ready.set_result, None)
    loop._run_once()
    loop.run_until_complete(ready)
    loop.close()


@pytest.mark.ctask_only  # asyncio's crashes
@pytest.mark.skipif(sys.version_info >= (3, 15), reason="a second __init__() is refused")
def test_a_task_that_found_no_loop_the_second_time(impl, loop, turn):
    async def waits():
        await loop.create_future()

    asyncio.set_event_loop(None)
    loop.set_exception_handler(ignore)
    task = impl.Task(waits(), loop=loop)
    turn()
    again = waits()
    with contextlib.suppress(RuntimeError):
        task.__init__(again)
    again.close()
    del task
    gc.collect()


@pytest.mark.ctask_only  # asyncio's is not
@pytest.mark.skipif(sys.version_info >= (3, 15), reason="a second __init__() is refused")
def test_a_future_is_whole_when_it_lets_go_of_what_it_was(impl, loop):
    class Last:
        def __del__(self):
            seen.append(fut.done())
            fut.set_result(5)

    seen = []
    fut = impl.Future(loop=loop)
    fut.set_result(Last())
    with contextlib.suppress(asyncio.InvalidStateError):
        fut.__init__(loop=loop)
    gc.collect()
    assert fut.done() in (True, False)
    if fut.done():
        fut.result()


def test_a_loop_that_starts_the_future_anew(impl):
    class Loop:
        def get_debug(self):
            return False

        def call_soon(self, callback, *args, context=None):
            fut.__init__(loop=Other())
            gc.collect()

    class Other(Loop):
        def call_soon(self, callback, *args, context=None):
            pass

    fut = impl.Future(loop=Loop())
    for _ in range(3):
        fut.add_done_callback(print)
    with contextlib.suppress(RuntimeError):
        fut.set_result(None)


@pytest.mark.ctask_only  # asyncio's crashes up to 3.13
def test_what_is_written_to_the_list_of_callbacks(impl, loop, turn):
    calls = []
    fut = impl.Future(loop=loop)
    fut.add_done_callback(print)
    fut.add_done_callback(calls.append)
    assert fut.remove_done_callback(print) == 1
    shown = fut._callbacks
    assert [callback for callback, _ in shown] == [calls.append]
    shown[0] = 7
    shown.append(5)
    fut.set_result(None)
    turn()
    assert calls == [fut]


@pytest.mark.ctask_only  # asyncio's crashes up to 3.13
@pytest.mark.parametrize("evil", ["removes", "starts anew", "ends", "raises", "adds"])
def test_a_callback_whose_comparison(impl, loop, turn, evil):
    class Callback:
        def __call__(self, fut):
            pass

    class Evil(Callback):
        def __eq__(self, other):
            if left:
                left.pop()
                if evil == "removes":
                    fut.remove_done_callback(plain)
                elif evil == "starts anew" and sys.version_info < (3, 15):
                    fut.__init__(loop=loop)
                elif evil == "ends" and not fut.done():
                    fut.set_result(None)
                elif evil == "raises":
                    raise KeyError
                elif evil == "adds":
                    fut.add_done_callback(plain)
                gc.collect()
            return NotImplemented

    for first in (False, True):
        left = [None] * 5
        fut = impl.Future(loop=loop)
        plain = Callback()
        if first:
            fut.add_done_callback(print)
        for _ in range(3):
            fut.add_done_callback(Evil())
            fut.add_done_callback(plain)
        with contextlib.suppress(KeyError):
            fut.remove_done_callback(Evil())
        left.clear()
        assert fut.remove_done_callback(print) <= 1
        fut.remove_done_callback(plain)
        if not fut.done():
            fut.set_result(None)
        turn()


@pytest.mark.ctask_only
@pytest.mark.parametrize(
    "changes",
    [
        "loop._ready.clear()",
        "loop._ready.popleft()",
        "loop._ready.appendleft(loop.call_soon(int))",
        "loop._ready.rotate(1)",
    ],
)
def test_a_look_at_what_is_ready_changes_it(script, changes):
    """The handles of transports and of operations on sockets are made of their methods."""
    done = script(
        f"""
    import socket
    changing = []
    def change():
        if not changing:
            changing.append(1)
            try:
                {changes}
            except RuntimeError:
                pass
            changing.clear()
        return print
    """,
        """
    warnings.simplefilter("ignore")

    class Loop(impl.EventLoop):
        @property
        def _sock_ready(self):
            return change()

    loop = Loop()
    loop.set_exception_handler(lambda *args: None)
    for n in range(20):
        a, b = socket.socketpair()
        a.setblocking(False)
        coro = loop.sock_recv(a, 10)
        coro.send(None)
        b.send(b"x")
        loop._poll(0)
        loop.call_soon(int)
        try:
            list(loop._ready)
        except RuntimeError as exc:
            assert str(exc) == "deque mutated during iteration"
        coro.close()
        loop._ready.clear()
        a.close()
        a = b.dup()
        a.setblocking(False)
        transport = loop._make_socket_transport(a, asyncio.Protocol())
        type(transport)._read_ready = property(lambda self: change())
        del transport
        loop.call_soon(int)
        try:
            list(loop._ready)
        except RuntimeError as exc:
            assert str(exc) == "deque mutated during iteration"
        loop._ready.clear()
        b.close()
    loop.close()
    print("stands")
    """,
    )
    assert done.out == "stands\n"


CORES = ["Lock", "Event", "Semaphore", "BoundedSemaphore", "Condition", "Queue", "TaskGroup"]


@pytest.mark.ctask_only
@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("method", ["__init__", "__new__", "__setattr__", "__getstate__"])
def test_the_methods_of_a_core_cannot_be_replaced(script, name, method):
    """Its own functions call them by the slots of the type, and would call themselves."""
    done = script(
        "impl.install()\n",
        f"""
        cls = getattr(asyncio, {name!r})
        core = cls.__mro__[1]
        try:
            setattr(core, {method!r}, getattr(core, {method!r}, None))
        except TypeError:
            print("refused")
        obj = type("derived", (cls,), {{}})()
        obj.__init__()
        obj.__dict__["evil"] = 5
        repr(obj)
        print("stands")
        """,
    )
    assert done.out == "refused\nstands\n"


@pytest.mark.parametrize("name", CORES)
def test_a_class_is_not_asked_for_its_hash(name):
    class Meta(type):
        def __hash__(cls):
            raise ValueError("evil")

        __eq__ = type.__eq__

    cls = Meta("cls", (getattr(asyncio, name),), {})
    obj = type("derived", (cls,), {})()
    obj.evil = 5
    assert vars(obj)["evil"] == 5
    assert obj.__reduce_ex__(2)[2]["evil"] == 5
    obj.__init__()


def test_a_look_for_the_task_class_raises(loop):
    """Another key with the same hash, which cannot be compared."""

    class Key:
        def __hash__(self):
            return hash("Task")

        def __eq__(self, other):
            raise ValueError("evil")

    async def nothing():
        pass

    names = vars(asyncio.tasks)
    before = names.pop("Task")
    key = Key()
    names[key] = None
    coro = nothing()
    try:
        with pytest.raises((ValueError, NameError)):
            loop.create_task(coro)
        with pytest.raises((ValueError, NameError)):
            asyncio.ensure_future(coro, loop=loop)
    finally:
        for other in [other for other in names if other is key]:
            del names[other]
        names["Task"] = before
    coro.close()


@pytest.mark.ctask_only
@pytest.mark.parametrize(
    "look, end",
    [
        ("loop._watched(one)", "loop._remove_reader(one); loop._remove_writer(one)"),
        ("loop.futures[-1]._callbacks", "loop.futures[-1].cancel(); loop._ready.clear()"),
    ],
)
def test_a_collection_takes_away_what_is_looked_at(script, look, end):
    """Up to 3.11 memory that is asked for may start one."""
    done = script(
        "impl.install()\n",
        f"""
        import gc, socket

        class Last:
            def __init__(self):
                self.self = self

            def __del__(self):
                {end}

        loop = impl.new_event_loop()
        loop.futures = []
        one, other = socket.socketpair()
        before = gc.get_threshold()
        for number in range(60):
            loop._add_reader(one, lambda: None)
            loop._add_writer(one, lambda: None)
            loop.futures.append(loop.create_future())
            for _ in range(3):
                loop.futures[-1].add_done_callback(lambda future: None)
            gc.collect()
            gc.disable()
            Last()
            gc.set_threshold(1 + number % 12)
            kept = [[] for _ in range(number // 12)]
            gc.enable()
            repr({look})
            gc.set_threshold(*before)
            gc.collect()
        loop.close()
        print("stands")
        """,
    )
    assert done.out == "stands\n"
