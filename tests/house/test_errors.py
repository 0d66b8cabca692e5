"""Bad input never crashes the interpreter. What could crash runs in a process of its own."""

import sys

import pytest

VALUES = """
VALUES = [None, 1, -1, "x", object(), [], {}, int, print, lambda *a, **k: None, ValueError, 1.5]

def attempt(func, *args, **kwargs):
    try:
        result = func(*args, **kwargs)
    except Exception:
        return None
    close = getattr(result, "close", None)
    if asyncio.iscoroutine(result):
        close()
    return result

warnings.simplefilter("ignore")
"""


@pytest.mark.ctask_only  # asyncio's own crash
def test_uninitialised_objects(script):
    out = script(
        VALUES,
        """
    for cls in (impl.Future, impl.Task, impl.Handle, impl.TimerHandle, impl.EventLoop):
        class Sub(cls):
            def __init__(self): pass
            def __del__(self): pass
        for make in (lambda: cls.__new__(cls), Sub):
            names = dir(make())
            for name in names:
                if name in ("run_forever", "_poll", "_run", "_run_once"):
                    continue  # which wait
                if name in ("__del__", "__class__", "__init__"):
                    continue
                obj = attempt(make)
                if obj is None:
                    continue
                member = attempt(getattr, obj, name)
                if callable(member) and not isinstance(member, type):
                    attempt(member)
                    for value in VALUES:
                        attempt(member, value)
                    attempt(member, 1, print)
            obj = attempt(make)
            attempt(repr, obj); attempt(hash, obj); attempt(str, obj)
            attempt(iter, obj); attempt(next, obj); attempt(lambda: obj == obj)
            attempt(gc.get_referents, obj)
            del obj
            gc.collect()
    print("done")
    """,
    )
    assert out.out.endswith("done\n")


def test_uninitialised_future_says_so(impl):
    fut = impl.Future.__new__(impl.Future)
    for call in (
        lambda: fut.set_result(1),
        lambda: fut.set_exception(ValueError()),
        fut.result,
        fut.exception,
        fut.get_loop,
        fut.cancel,
        lambda: fut.add_done_callback(print),
        lambda: fut.remove_done_callback(print),
        fut._make_cancelled_error,
        lambda: next(iter(fut)),
    ):
        try:
            call()
        except (RuntimeError, AttributeError):
            continue
        except Exception as exc:
            assert type(exc).__name__ in ("InvalidStateError", "StopIteration"), exc
    assert fut.done() is False


def test_init_of_live_objects(script):
    out = script(
        VALUES,
        """
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda *a: None)

    async def body():
        await asyncio.sleep(0)

    def futures():
        yield impl.Future(loop=loop)
        f = impl.Future(loop=loop); f.set_result(1); yield f
        f = impl.Future(loop=loop); f.set_exception(ValueError()); yield f
        f = impl.Future(loop=loop); f.cancel("x"); yield f
        f = impl.Future(loop=loop); f.add_done_callback(print); f.add_done_callback(int); yield f

    for fut in futures():
        for value in VALUES:
            attempt(fut.__init__, loop=value)
        attempt(fut.__init__, loop=loop)
        attempt(fut.set_result, 1)
        attempt(repr, fut)

    async def waits(fut):
        await fut

    def tasks():
        yield loop.create_task(body())
        t = loop.create_task(body()); loop.run_until_complete(t); yield t
        t = loop.create_task(body()); t.cancel(); yield t
        t = loop.create_task(waits(loop.create_future())); loop.stop(); loop.run_forever(); yield t

    for task in tasks():
        for value in VALUES:
            attempt(task.__init__, value, loop=loop)
            attempt(task.__init__, body(), loop=value)
        attempt(task.__init__, body(), loop=loop)
        attempt(task.cancel)
        for _ in range(3):
            attempt(loop.stop); attempt(loop.run_forever)

    async def suicidal():
        attempt(asyncio.current_task().__init__, body(), loop=loop)
        await asyncio.sleep(0)

    task = None if STOCK else loop.create_task(suicidal())  # asyncio's own crashes
    for _ in range(5):
        attempt(loop.stop); attempt(loop.run_forever)
    for _ in range(3):
        attempt(loop.__init__)
        attempt(loop.call_soon, int); loop.stop(); attempt(loop.run_forever)
    loop.close()
    attempt(loop.__init__)
    attempt(loop.call_soon, int); attempt(loop.stop); attempt(loop.run_forever)
    handle = impl.Handle(int, (), loop, None)
    attempt(handle.__init__); attempt(handle.__init__, int, (), loop)
    attempt(handle._run); handle.cancel(); attempt(handle._run); attempt(handle.__init__, 1, 2, 3)
    attempt(handle._run); attempt(repr, handle)
    loop.stop(); attempt(loop.run_forever)
    loop.close()
    del fut, handle
    gc.collect()
    print("done")
    """,
    )
    assert out.out.endswith("done\n")


def test_setting_and_deleting_attributes(script):
    out = script(
        VALUES,
        """
    async def body():
        await asyncio.sleep(0)

    def objects():
        loop = impl.new_event_loop()
        loop.set_exception_handler(lambda *a: None)
        task = loop.create_task(body())
        future = impl.Future(loop=loop)
        return loop, [loop, future, task, loop.call_soon(int), loop.call_later(9, int)]

    names = [dir(o) for o in objects()[1]]
    for n in range(5):
        for name in names[n]:
            if name in ("__class__", "__dict__", "call_exception_handler"):
                continue
            for change in (delattr, lambda o, a: setattr(o, a, None), lambda o, a: setattr(o, a, 5),
                           lambda o, a: setattr(o, a, lambda *x: None)):
                loop, objs = objects()
                try:
                    change(objs[n], name)
                except Exception:
                    pass
                if n or name not in ("stop", "_stopping", "run_forever", "_selector", "_run_once",
                                     "time", "_run", "_poll"):
                    attempt(impl.EventLoop.stop, loop)
                    attempt(impl.EventLoop.run_forever, loop)
                attempt(repr, objs[n])
                attempt(impl.EventLoop.close, loop)
                asyncio._set_running_loop(None)
                objs = loop = None
    gc.collect()
    print("done")
    """,
        timeout=100,
    )
    assert out.out.endswith("done\n")


def test_wrong_types_everywhere(script):
    out = script(
        VALUES,
        """
    import itertools, signal, threading, logging
    logging.disable(logging.CRITICAL)

    async def body():
        await asyncio.sleep(0)

    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda *a: None)
    skip = {"run_forever", "close", "stop", "add_signal_handler", "run_in_executor", "__class__",
            "__init__", "__new__", "__del__", "set_default_executor", "connect_write_pipe"}
    task = loop.create_task(body())
    for make in (lambda: loop, lambda: impl.Future(loop=loop), lambda: task,
                 lambda: loop.call_soon(int), lambda: impl.TimerHandle(1e6, int, (), loop)):
        for name in dir(make()):
            if name in skip or name.startswith("_") and not name.startswith("__"):
                continue
            for n in range(3):
                for args in itertools.product(VALUES, repeat=n):
                    attempt(getattr(make(), name), *args)
            attempt(getattr(make(), name), context=5)
            attempt(getattr(make(), name), 1, int, context=5)
            attempt(getattr(make(), name), nonsense=5)
    loop.set_exception_handler(lambda *a: None)
    loop.set_task_factory(None)
    loop.set_debug(False)
    for fd in range(20):
        attempt(loop.remove_reader, fd); attempt(loop.remove_writer, fd)
    for _ in range(3):
        loop.stop()
        attempt(loop.run_forever)
    for cls in (impl.Future, impl.Task, impl.Handle, impl.TimerHandle, impl.EventLoop):
        for n in range(3):
            for args in itertools.product(VALUES, repeat=n):
                attempt(cls, *args)
                attempt(cls, *args, loop=loop)
        attempt(cls, loop=5); attempt(cls, nonsense=5)
        coro = body()
        attempt(cls, coro, loop=5); attempt(cls, coro, loop=loop, context=5)
        attempt(cls, coro, loop=loop, name=object(), context=object())
        coro.close()
    for _ in range(3):
        loop.stop()
        attempt(loop.run_forever)
    loop.close()
    print("done")
    """,
        timeout=100,
    )
    assert out.out.endswith("done\n")


EVIL = """
warnings.simplefilter("ignore")
loop = impl.new_event_loop()
loop.set_exception_handler(lambda *a: None)

def spin(n=5):
    for _ in range(n):
        loop.stop()
        try:
            loop.run_forever()
        except Exception:
            pass
"""


@pytest.mark.parametrize("during", ["remove_done_callback", "set_result", "cancel", "__init__"])
def test_eq_that_changes_the_future(script, during):
    action = {
        "remove_done_callback": "fut.remove_done_callback(int)",
        "set_result": "fut.set_result(1)",
        "cancel": "fut.cancel()",
        "__init__": "fut.__init__(loop=loop)",
    }[during]
    out = script(
        EVIL,
        f"""
depth = 0

class Evil:
    def __eq__(self, other):
        global depth
        depth += 1
        try:
            if depth < 3:
                {action}
                fut.add_done_callback(str)
                fut.remove_done_callback(int)
        except Exception:
            pass
        depth -= 1
        return depth % 2 == 0
    def __call__(self, *args):
        pass
    __hash__ = None

for before in range(4):
    for after in range(4):
        fut = impl.Future(loop=loop)
        for _ in range(before): fut.add_done_callback(int)
        fut.add_done_callback(Evil())
        for _ in range(after): fut.add_done_callback(Evil())
        for _ in range(3):
            try:
                fut.remove_done_callback(Evil())
            except RuntimeError:
                pass
        spin(1)
loop.close()
print("done")
""",
    )
    assert out.out == "done\n"


def test_call_soon_that_changes_the_future(script):
    out = script(
        EVIL,
        """
class Loop:
    def __init__(self, action): self.action = action
    def get_debug(self): return False
    def call_soon(self, cb, *args, **kw):
        try:
            self.action(args[0] if args else None)
        except Exception:
            pass
    def call_exception_handler(self, context): pass

def clear(fut): fut.__init__(loop=fut.get_loop())
def add(fut):
    fut.add_done_callback(int)
def remove(fut):
    for cb in (int, str, print): fut.remove_done_callback(cb)
def fail(fut): raise LookupError
def drop(fut):
    fut._callbacks
    gc.collect()

for action in (clear, add, remove, fail, drop):
    if STOCK and action is clear:  # asyncio's own crashes
        continue
    for how in ("set_result", "set_exception", "cancel"):
        fut = impl.Future(loop=Loop(action))
        if action is not add:
            for cb in (int, str, print, lambda f: None): fut.add_done_callback(cb)
        else:
            fut.add_done_callback(int)
        sys.setrecursionlimit(200)
        try:
            getattr(fut, how)(*([ValueError()] if how != "cancel" else []))
        except (LookupError, RecursionError):
            pass
        try:
            fut.exception()
        except BaseException:
            pass
loop.close()
print("done")
""",
    )
    assert out.out == "done\n"


@pytest.mark.parametrize("value", ["object()", "5", "'x'", "None", "type", "int"])
def test_loop_that_is_no_loop(script, value):
    out = script(
        VALUES,
        f"""
async def body():
    await asyncio.sleep(0)
bad = {value}
fut = attempt(impl.Future, loop=bad)
if fut is not None:
    attempt(fut.add_done_callback, print); attempt(fut.set_result, 1); attempt(repr, fut)
    attempt(fut.cancel); attempt(fut.result)
coro = body()
task = attempt(impl.Task, coro, loop=bad)
coro.close()
handle = attempt(impl.Handle, print, (), bad, None)
if handle is not None:
    attempt(handle.cancel); attempt(repr, handle); attempt(handle._run)
handle = attempt(impl.TimerHandle, 1.0, print, (), bad, None)
if handle is not None:
    attempt(handle.cancel); attempt(repr, handle); attempt(handle._run); attempt(handle.when)
print("done")
""",
    )
    assert out.out.endswith("done\n")


def test_get_debug_that_misbehaves(impl):
    class Loop:
        def __init__(self, answer):
            self.answer = answer

        def get_debug(self):
            return self.answer()

    def fails():
        raise LookupError("get_debug")

    class NoBool:
        def __bool__(self):
            raise LookupError("bool")

    for answer in (fails, NoBool):
        with pytest.raises(LookupError):
            impl.Future(loop=Loop(answer))
    with pytest.raises(AttributeError):
        impl.Future(loop=object())


def test_evil_del(script):
    out = script(
        EVIL,
        """
class Evil:
    def __init__(self, action): self.action = action
    def __call__(self, *args): pass
    def __del__(self):
        try:
            self.action()
        except Exception:
            pass

def actions(fut, task, handle):
    return [
        lambda: fut.set_result(1), lambda: fut.cancel(), lambda: fut.add_done_callback(int),
        lambda: fut._callbacks, lambda: task.cancel(), lambda: loop.call_soon(int),
        lambda: loop.call_later(0, int), lambda: handle.cancel(), lambda: gc.collect(),
        lambda: loop.create_task(asyncio.sleep(0)), lambda: loop.stop(),
        lambda: fut.__init__(loop=loop), lambda: repr(fut), lambda: repr(handle),
        lambda: loop.close(), lambda: asyncio.all_tasks(loop),
    ]

for n in range(16):
    if loop.is_closed():
        loop = impl.new_event_loop()
        loop.set_exception_handler(lambda *a: None)
    fut = impl.Future(loop=loop)
    task = loop.create_task(asyncio.sleep(0))
    handle = loop.call_soon(int)
    action = actions(fut, task, handle)[n]
    fut.add_done_callback(Evil(action))
    fut.add_done_callback(Evil(action))
    loop.call_soon(Evil(action), Evil(action))
    loop.call_soon(Evil(action), Evil(action)).cancel()
    try:
        loop.call_later(0, Evil(action), Evil(action))
        loop.call_later(5, Evil(action), Evil(action)).cancel()
        fut.cancel(msg=Evil(action)) if n % 2 else fut.set_result(Evil(action))
        fut.__init__(loop=loop)
    except (RuntimeError, asyncio.InvalidStateError):
        pass
    spin(3)
    try:
        h = loop.call_soon(Evil(action)); h.cancel(); del h
        loop.call_soon(Evil(action)); loop.call_later(5, Evil(action))
    except RuntimeError:
        pass
    loop.close()
    asyncio._set_running_loop(None)
    del fut, task, handle, action
    gc.collect()
print("done")
""",
    )
    assert out.out == "done\n"


def test_evil_futures(script):
    out = script(
        EVIL,
        """
class Base:
    _asyncio_future_blocking = True
    def get_loop(self): return loop
    def add_done_callback(self, cb, *, context=None): self.cb = cb
    def result(self): return 1
    def cancel(self, msg=None): return False
    def __await__(self):
        yield self
        return 1

def raising(*args, **kwargs):
    raise LookupError
def reinit(*args, **kwargs):
    task.__init__(other(), loop=loop)
    return loop
def cancels(*args, **kwargs):
    task.cancel()
    return loop
def collects(*args, **kwargs):
    gc.collect()
    return True
async def other():
    await asyncio.sleep(0)

class NoBool:
    def __bool__(self): raise LookupError

for name in ("get_loop", "add_done_callback", "result", "cancel", "_asyncio_future_blocking",
             "__await__"):
    for action in (raising, reinit, cancels, collects, None, 5, NoBool()):
        if STOCK and action is reinit:  # asyncio's own crashes
            continue
        is_property = name.startswith("_asyncio") and callable(action)
        attrs = {name: property(action) if is_property else action}
        Fut = type("Fut", (Base,), attrs)
        async def body():
            await Fut()
        task = loop.create_task(body())
        spin(2)
        try:
            task.cancel()
        except Exception:
            pass
        spin(2)
        task._log_destroy_pending = False
        del task
        gc.collect()
loop.close()
print("done")
""",
    )
    assert out.out == "done\n"


def test_evil_coroutines(script):
    out = script(
        EVIL,
        """
import collections.abc

class Coro(collections.abc.Coroutine):
    def __init__(self, action): self.action = action
    def send(self, value): return self.action(self)
    def throw(self, *exc): return self.action(self)
    def close(self): pass
    def __await__(self): yield

def raising(coro): raise LookupError
def cancels(coro): task.cancel(); return None
def recursive(coro):
    try:
        loop.run_forever()
    except RuntimeError:
        pass
    return None
def reinit(coro):
    try:
        task.__init__(Coro(raising), loop=loop)
    except RuntimeError:
        pass
    return None
def stop(coro): raise StopIteration
def stop_value(coro): raise StopIteration((1, 2))
def evil_stop(coro):
    exc = StopIteration()
    exc.value = coro
    raise exc
def itself(coro): return task
def the_coro(coro): return coro
def closes(coro):
    try:
        loop.close()
    except RuntimeError:
        pass
    return None
def done_future(coro):
    fut = loop.create_future(); fut.set_result(1); fut._asyncio_future_blocking = True
    return fut
def uninitialised(coro):
    fut = impl.Future.__new__(impl.Future)
    return fut
def a_class(coro): return impl.Future

for action in (raising, cancels, recursive, reinit, stop, stop_value, evil_stop, itself, the_coro,
               closes, done_future, uninitialised, a_class):
    if STOCK and action in (recursive, reinit):  # asyncio's own loses its loop, or crashes
        continue
    task = loop.create_task(Coro(action))
    spin(4)
    task.cancel()
    spin(2)
    task._log_destroy_pending = False
    repr(task); task.get_stack()
    del task
    gc.collect()
loop.close()
print("done")
""",
    )
    assert out.out == "done\n"


def test_deep_chains(script):
    out = script("""
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda *a: None)

    # a chain of futures, each the (boxed) result of the next, freed at once
    fut = None
    for _ in range(100_000):
        outer = impl.Future(loop=loop)
        outer.set_result([fut])
        fut = outer
    repr(fut)
    del fut, outer
    gc.collect()

    # a chain of tasks, each waiting for the next
    async def chain(n):
        if n:
            await loop.create_task(chain(n - 1))
        return n
    assert loop.run_until_complete(chain(5000)) == 5000

    async def endless(inner):
        await inner
    async def main():
        inner = loop.create_future()
        tasks = []
        for _ in range(300):
            inner = loop.create_task(endless(inner))
            tasks.append(inner)
        for _ in range(3):
            await asyncio.sleep(0)
        tasks[-1].cancel()
        try:
            await tasks[-1]
        except asyncio.CancelledError:
            pass
        assert all(t.cancelled() for t in tasks)
    loop.run_until_complete(main())

    # callbacks that complete the next future
    futs = [impl.Future(loop=loop) for _ in range(20_000)]
    for a, b in zip(futs, futs[1:]):
        a.add_done_callback(lambda f, b=b: b.set_result(1))
    futs[0].set_result(1)
    assert loop.run_until_complete(futs[-1]) == 1
    loop.close()
    print("done")
    """)
    assert out.out == "done\n"


def test_cancel_of_a_chain_deeper_than_the_recursion_limit(script):
    out = script("""
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda *a: None)
    async def waits(inner):
        await inner
    async def main():
        inner = loop.create_future()
        tasks = []
        for _ in range(5000):
            inner = loop.create_task(waits(inner))
            tasks.append(inner)
        for _ in range(3):
            await asyncio.sleep(0)
        try:
            tasks[-1].cancel()
        except RecursionError:
            pass
        for task in tasks:
            if not task.done():
                task.cancel()
            await asyncio.wait([task])
    loop.run_until_complete(main())
    loop.close()
    print("done")
    """)
    assert out.out == "done\n"


@pytest.mark.parametrize(
    "what",
    [
        "call_soon",
        "call_later",
        "call_soon_threadsafe",
        "create_future",
        "create_task",
        "set_result",
        "set_exception",
        "cancel",
        "add_done_callback",
        "await",
        "wakeup",
        "many_ready",
        "many_timers",
        "add_reader",
    ],
)
def test_running_out_of_memory(script, what):
    out = script(f"""
    import socket
    try:
        import _testcapi
    except ImportError:
        print("done")
        sys.exit()
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda args: None
    what = {what!r}
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda *a: None)

    def callback(*args):
        pass

    async def body():
        await asyncio.sleep(0)
        fut = loop.create_future()
        loop.call_soon(fut.set_result, 1)
        return await fut

    async def waits(fut):
        return await fut

    def prepare():
        fut = loop.create_future()
        for _ in range(3):
            fut.add_done_callback(callback)
        return fut, body(), socket.socketpair()

    def act(fut, coro, pair):
        if what == "call_soon": loop.call_soon(callback, 1)
        elif what == "call_later": loop.call_later(0, callback, 1)
        elif what == "call_soon_threadsafe": loop.call_soon_threadsafe(callback)
        elif what == "create_future": loop.create_future()
        elif what == "create_task": loop.create_task(coro)
        elif what == "set_result": fut.set_result(1)
        elif what == "set_exception": fut.set_exception(ValueError())
        elif what == "cancel": fut.cancel("why")
        elif what == "add_done_callback": fut.add_done_callback(callback)
        elif what == "await": next(fut.__await__())
        elif what == "wakeup": waited.set_result(1)
        elif what == "many_ready":
            for _ in range(200): loop.call_soon(callback)
        elif what == "many_timers":
            for _ in range(200): loop.call_later(0, callback)
        elif what == "add_reader":
            loop.add_reader(pair[0].fileno(), callback)

    for n in range(1, 40):
        fut, coro, pair = prepare()
        waited = loop.create_future()
        waiter = loop.create_task(waits(waited))
        loop.stop(); loop.run_forever()
        _testcapi.set_nomemory(n, n + 3 if n % 2 else n + 1)
        try:
            act(fut, coro, pair)
        except MemoryError:
            pass
        except BaseException:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        try:
            fut.exception()
        except BaseException:
            pass
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(3):
            loop.stop()
            try:
                loop.run_forever()
            except BaseException:
                pass
        loop.remove_reader(pair[0])
        coro.close()
        for sock in pair: sock.close()
    # everything is still consistent
    assert loop.run_until_complete(body()) == 1
    seen = []
    loop.call_later(0, seen.append, 2)
    loop.call_soon(seen.append, 1)
    loop.stop(); loop.run_forever()
    assert seen == [1, 2], seen
    loop.close()
    del fut, coro, loop
    gc.collect()
    print("done")
    """)
    assert out.out == "done\n"


@pytest.mark.parametrize("how", ["pending", "unclosed", "daemon", "running", "globals", "never"])
def test_interpreter_ends_with_work_left(script, how):
    out = script(f"""
    import threading
    how = {how!r}
    loop = impl.new_event_loop()
    async def forever():
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(0)
    if how == "pending":
        task = loop.create_task(forever())
        loop.stop(); loop.run_forever()
        loop.close()
    elif how == "unclosed":
        loop.call_soon(print, "never"); loop.call_later(100, print, loop)
        loop.create_task(forever())
    elif how == "daemon":
        started = threading.Event()
        def body():
            loop.call_soon(started.set)
            loop.run_forever()
        threading.Thread(target=body, daemon=True).start()
        started.wait()
    elif how == "running":
        def leave():
            sys.exit(0)
        task = loop.create_task(forever())
        loop.call_soon(leave)
        print("done")
        loop.run_forever()
    elif how == "globals":
        fut = impl.Future(loop=loop)
        handle = loop.call_later(1000, print, fut)
        fut.add_done_callback(print)
        iterator = fut.__await__()
        asyncio.keep = [fut, handle, iterator, loop]
    elif how == "never":
        coro = forever()
        task = impl.Task(coro, loop=loop)
        del loop
    if how != "running":
        print("done")
    """)
    assert out.out == "done\n"


def test_calls_from_many_threads_without_the_lock_do_not_crash(script):
    out = script("""
    import threading
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda *a: None)
    def noise():
        for _ in range(500):
            loop.call_soon(int)
            loop.call_later(0, int).cancel()
            fut = loop.create_future()
            fut.add_done_callback(lambda f: None)
            fut.set_result(1)
            asyncio.all_tasks(loop)
    threads = [threading.Thread(target=noise) for _ in range(3)]
    for t in threads: t.start()
    async def main():
        for _ in range(50):
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))
    loop.run_until_complete(main())
    for t in threads: t.join()
    loop.close()
    print("done")
    """)
    assert out.out == "done\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no forked warning to speak of before")
def test_forked_child_can_run_a_loop_of_its_own(script):
    out = script("""
    import os
    warnings.simplefilter("ignore")
    async def child():
        await asyncio.sleep(0)
        return 7
    async def main():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert asyncio._get_running_loop() is None
                loop = impl.new_event_loop()
                code = loop.run_until_complete(child())
                loop.close()
            finally:
                os._exit(code)
        await asyncio.sleep(0)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    assert impl.run(main()) == 7
    print("done")
    """)
    assert out.out == "done\n"


def test_generator_close_while_the_task_waits(script):
    out = script(
        EVIL,
        """
async def body():
    await loop.create_future()
task = loop.create_task(body())
spin(1)
task.get_coro().close()
task._fut_waiter.set_result(1)
spin(2)
try:
    task.result()
except Exception:
    pass
task.cancel()
spin(2)
loop.close()
print("done")
""",
    )
    assert out.out == "done\n"


def test_stepping_the_coroutine_behind_the_tasks_back(script):
    out = script(
        EVIL,
        """
async def body():
    try:
        await loop.create_future()
    except ValueError:
        await asyncio.sleep(0)
task = loop.create_task(body())
spin(1)
try:
    task.get_coro().send(None)
except RuntimeError:
    pass
try:
    task.get_coro().throw(ValueError())
except BaseException:
    pass
spin(2)
task._fut_waiter and task._fut_waiter.cancel()
spin(3)
task._log_destroy_pending = False
loop.close()
print("done")
""",
    )
    assert out.out == "done\n"


@pytest.mark.ctask_only  # asyncio's own are what is asked for
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", ["future", "task"])
def test_methods_of_asyncios_types_on_what_a_task_waits_for(script, kind, debug):
    """They know nothing of the form in which a waiting task is kept."""
    out = script(
        f"""
import _asyncio, contextlib, os

async def wait(obj):
    await obj

async def never():
    await asyncio.get_running_loop().create_future()

async def main():
    loop = asyncio.get_running_loop()
    loop.set_debug({debug})
    loop.set_exception_handler(lambda loop, context: None)
    stock = _asyncio.{kind.capitalize()}
    for name in ["_callbacks", "remove_done_callback", "add_done_callback", "cancel", "set_result",
                 "set_exception", "__repr__"]:
        obj = loop.create_future() if {kind!r} == "future" else loop.create_task(never())
        waiting = loop.create_task(wait(obj))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with contextlib.suppress(RuntimeError, TypeError):  # of a task; in debug mode
            if name == "_callbacks":
                stock._callbacks.__get__(obj)
            elif name == "add_done_callback":
                stock.add_done_callback(obj, print, context=None)
            elif name in ("cancel", "__repr__"):
                getattr(stock, name)(obj)
            else:
                getattr(stock, name)(obj, ValueError())
        await asyncio.sleep(0)
        repr(obj)
        repr(loop._ready)
        obj.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # A callback in a task's place, without a context.
    for way in range(3):
        called = []
        obj = loop.create_future()
        stock_add = _asyncio.Future.add_done_callback
        stock_add(obj, called.append, context=None)
        if way == 1:
            repr(obj), obj._callbacks
        elif way == 2:
            loop.set_debug(not {debug})
        obj.set_result(1)
        repr(loop._ready)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert called == [obj] or way == 1, (way, called)
        loop.set_debug({debug})
    print("alive", flush=True)
    os._exit(0)  # some of the tasks will not be woken any more

impl.run(main())
"""
    )
    assert out.out.endswith("alive\n")
