"""Sub-interpreters that are destroyed, and what is left in an interpreter when it ends."""

import sys
import textwrap

import pytest
from conftest import PRELUDE, STOCK

# 3.12.1 crashes by itself when an interpreter that imported ssl is destroyed.
needs_interpreters = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="_interpreters is of 3.13, as what makes them safe to destroy",
)

IN_ANOTHER = """
import _interpreters, sys

def run_in_another(code):
    interpreter = _interpreters.create("isolated")
    failed = _interpreters.run_string(interpreter, code)
    _interpreters.destroy(interpreter)
    if failed is not None:
        sys.exit(failed.formatted)
"""

LEFT = {
    "in_globals": """
        loop = impl.new_event_loop()
        fut, task = loop.create_future(), loop.create_task(asyncio.sleep(3))
        loop.run_until_complete(asyncio.sleep(0))
    """,
    "in_builtins": """
        import builtins
        builtins.loop = loop = impl.new_event_loop()
        builtins.task = loop.create_task(asyncio.sleep(3))
        loop.run_until_complete(asyncio.sleep(0))
    """,
    "in_a_cycle_of_a_module": """
        class Module: pass
        module = sys.modules["made_up"] = Module()
        module.me, module.loop = module, impl.new_event_loop()
        module.fut = module.loop.create_future()
        module.fut.add_done_callback(lambda fut, module=module: module)
        module.loop.call_later(100, print, module)
    """,
    "in_an_audit_hook_and_a_fork_hook": """
        import os
        loop = impl.new_event_loop()
        sys.addaudithook(lambda *args, fut=loop.create_future(): None)
        os.register_at_fork(before=lambda handle=loop.call_soon(print): None)
    """,
    "by_an_exit_function": """
        import atexit
        atexit.register(impl.new_event_loop)
        atexit.register(lambda: impl.run(asyncio.sleep(0)))
    """,
    "by_the_finalizer_of_a_fork_hook": """
        import os
        class Loop:
            def get_debug(self): return False
            def call_soon(self, *args, **kwargs): pass
        class Hook:
            def __call__(self): pass
            def __del__(self, Future=impl.Future, loop=Loop()):
                left = [Future(loop=loop), Future(loop=loop)]
                left[0].add_done_callback(left.append)
                left.append(left)
        os.register_at_fork(before=Hook())
    """,
    "with_a_finalizer": """
        loop = impl.new_event_loop()
        class Left:
            __slots__ = ()
            def __del__(self, Future=impl.Future, loop=loop):
                Future(loop=loop).cancel()
                loop.call_soon(print)
        def hold(left=Left()): return left
        hold.me = hold
        import os
        os.register_at_fork(before=lambda hold=hold: None)
    """,
}


@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.13.0 keeps the memory of asyncio itself")
def test_a_destroyed_interpreter_leaves_no_memory(script):
    name = "asyncio" if STOCK else "ctask"
    out = script(
        IN_ANOTHER,
        f"""
        import os
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
        code = "import asyncio, {name}; {name}.run(asyncio.sleep(0.001))"
        run_in_another(code)
        run_in_another(code)
        before = resident()
        for _ in range(10):
            run_in_another(code)
        print((resident() - before) // 10)
        """,
        bare=True,
        timeout=60,
    ).out
    assert int(out) < 1000  # KiB; it was 8 MB


@pytest.mark.parametrize("how", LEFT)
def test_an_interpreter_ends_with_objects_left(script, how):
    script(LEFT[how], code=None)


@needs_interpreters
@pytest.mark.parametrize("how", LEFT)
def test_a_destroyed_interpreter_had_objects_left(script, how):
    code = PRELUDE.format(stock=STOCK) + textwrap.dedent(LEFT[how])
    script(IN_ANOTHER, f"run_in_another({code!r})", bare=True, code=None)
