"""Pages for much memory: when an arena comes with all of them, when it is kept for the next, and
when it is given back. Each test is about a process of its own.
"""

import ctypes
import mmap
import os
import sys

import pytest

pytestmark = pytest.mark.ctask_only


def kernel_populates() -> bool:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    libc = ctypes.CDLL(None, use_errno=True)
    MADV_POPULATE_WRITE = 23
    return (
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), MADV_POPULATE_WRITE)
        == 0
    )


populates = pytest.mark.skipif(
    not kernel_populates(), reason="this kernel gives pages one by one (before Linux 5.14)"
)

# take(n): objects of almost n MiB; if nobody keeps them, they come and go.
HELPERS = """
import asyncio, os, threading, time
from ctask import _ctask

def take(mebibytes):
    return [[i] for i in range(mebibytes * 8000)]

def resident():
    with open("/proc/self/smaps_rollup") as file:
        return int(file.read().split("Rss:")[1].split()[0]) // 4  # pages

def kept():
    return _ctask._arenas()[2]

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, _ctask._arenas()
        time.sleep(0.01)

def in_threads(function):
    threads = [threading.Thread(target=function) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def in_loop(function):
    async def main():
        return function()
    return impl.run(main())
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    # Also where the tests run with another allocator, as under a sanitizer.
    monkeypatch.setenv("PYTHONMALLOC", "pymalloc")
    # AddressSanitizer keeps what is freed, such as the lists' own memory.
    if "ASAN_OPTIONS" in os.environ:
        monkeypatch.setenv("ASAN_OPTIONS", os.environ["ASAN_OPTIONS"] + ":quarantine_size_mb=1")


@pytest.fixture
def program(script):
    def program(*source: str) -> str:
        return script(HELPERS, *source).out

    return program


@populates
def test_arena_of_a_large_program_comes_with_its_pages(program):
    program("""
    def main():
        objects = take(40)
        kept = [None] * 20_000
        for attempt in range(5):
            before = _ctask._arenas()
            # The last may have been taken when the arena was there, as it takes memory, too.
            pages = [resident(), resident()]
            n = 0
            assert before[2] == 0
            while _ctask._arenas() == before:
                if n % 100 == 0:
                    pages = [pages[1], resident()]
                kept[n] = [n]
                n += 1
            assert _ctask._arenas() == (before[0] + 1, before[1] + 1, 0)
            assert resident() - pages[0] > 200, (resident(), pages)
            objects.append(kept[:])

    in_loop(main)
    """)


def test_small_program_gets_its_pages_one_by_one(program):
    program("""
    def main():
        objects = take(16)
        alive, populated, _ = _ctask._arenas()
        assert 10 < alive <= 32 and populated == 0, (alive, populated)

    in_loop(main)
    """)


@populates
def test_only_more_than_ever_come_with_their_pages(program):
    program("""
    def main():
        objects = take(64)
        alive, populated, _ = _ctask._arenas()
        assert populated == alive - 32 > 20
        for _ in range(3):
            del objects[len(objects) // 2:]
            assert _ctask._arenas()[0] < alive - 20
            objects += take(30)
            assert _ctask._arenas()[1] == populated
        objects += take(30)
        assert _ctask._arenas()[1] > populated + 10

    in_loop(main)
    """)


def test_what_is_freed_serves_again(program):
    program("""
    from resource import RUSAGE_SELF, getrusage

    def main():
        objects = take(40)
        half = len(objects) // 2
        for _ in range(3):
            alive, _, unused = _ctask._arenas()
            for i in range(half):
                objects[i] = None
            left, _, more = _ctask._arenas()
            assert left < alive - 10 and left + more == alive + unused
            faults = getrusage(RUSAGE_SELF).ru_minflt
            for i in range(half):
                objects[i] = [i]
            faults = getrusage(RUSAGE_SELF).ru_minflt - faults
            assert faults < 5 * 256, faults
            assert kept() < more - 10

    in_loop(main)
    """)


def test_idle_loop_gives_back(program):
    program("""
    pages = []

    async def main():
        objects = take(40)
        pages.append(resident())
        del objects
        assert kept() > 30
        # Nothing but what is kept ends the loop's sleep.
        await asyncio.get_running_loop().run_in_executor(None, until, lambda: kept() == 0)
        pages.append(resident())

    impl.run(main())
    assert pages[1] < pages[0] - 30 * 256, pages
    """)


def test_busy_loop_gives_back(program):
    program("""
    async def main():
        take(40)
        assert kept() > 30
        end = time.monotonic() + 20
        while kept():
            assert time.monotonic() < end
            await asyncio.sleep(0)

    impl.run(main())
    """)


def test_what_is_needed_again_within_a_second_is_kept(program):
    program("""
    async def main():
        take(40)
        whole = sum(_ctask._arenas()[::2])
        for _ in range(14):
            await asyncio.sleep(0.2)  # less than a second each, and together more than two
            take(20)
        left = sum(_ctask._arenas()[::2])
        assert whole - 30 < left < whole - 10, (whole, left)

    impl.run(main())
    """)


def test_nothing_is_kept_without_a_loop(program):
    program("""
    def main():
        take(20)
        assert kept() > 10

    for _ in range(2):
        in_loop(main)
        assert kept() == 0
        take(20)
        assert kept() == 0
    """)


def test_nothing_is_kept_while_the_loop_sleeps(program):
    program("""
    def main():
        time.sleep(0.1)  # nothing can be asked that would tell that the loop sleeps
        take(20)
        assert kept() == 0

    impl.run(asyncio.to_thread(main))
    """)


def test_loop_that_ends_with_an_exception_gives_back(program):
    program("""
    def main():
        take(20)
        assert kept() > 10
        raise SystemExit

    for _ in range(2):
        loop = impl.new_event_loop()
        loop.call_soon(main)
        try:
            loop.run_forever()
        except SystemExit:
            assert kept() == 0
        else:
            raise AssertionError
        loop.close()
    """)


def test_not_before_a_loop_runs(program):
    program("""
    loop = impl.new_event_loop()
    objects = take(64)
    assert _ctask._arenas() == (0, 0, 0)
    loop.close()
    """)


def test_arenas_from_before_are_given_back(program):
    program("""
    objects = take(128)
    pages = resident()

    async def main():
        global objects
        more = take(8)
        objects = None
        assert _ctask._arenas()[0] < 0
        assert kept() > 100
        await asyncio.to_thread(until, lambda: kept() == 0)
        assert resident() < pages - 100 * 256 + 10 * 256, (resident(), pages)
        more += take(8)

    impl.run(main())
    """)


def test_threads_and_loops_one_after_the_other(program):
    program("""
    objects = []

    def run():
        for _ in range(3):
            objects.append(in_loop(lambda: take(8)))
            objects.pop(0)

    in_threads(run)
    assert not objects and kept() == 0
    """)


OF_AN_INTERPRETER = """
import asyncio
import ctask

async def main():
    for _ in range(40):
        objects = [[i] for i in range(40_000)]
        del objects
        await asyncio.sleep(0)

ctask.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="_interpreters is there from 3.13 on")
def test_interpreters_with_locks_of_their_own(program):
    """They share what is kept, and none waits for another."""
    program(
        f"source = {OF_AN_INTERPRETER!r}",
        """
    import _interpreters

    def run():
        interpreter = _interpreters.create("isolated")
        failed.append(_interpreters.exec(interpreter, source))
        _interpreters.destroy(interpreter)

    failed = []
    in_threads(run)
    assert failed == [None] * 4, failed
    assert kept() == 0
    """,
    )


@pytest.mark.parametrize("allocator", ["malloc", "malloc_debug", "pymalloc_debug"])
def test_other_allocators(program, monkeypatch, allocator):
    monkeypatch.setenv("PYTHONMALLOC", allocator)
    program(f"""
    def main():
        objects = take(64)
        assert (_ctask._arenas()[0] > 32) == {allocator == "pymalloc_debug"}

    in_loop(main)
    """)


def test_forked_child(program):
    program("""
    def child(objects):
        unused = kept()
        objects += take(20)
        assert kept() < unused - 10, _ctask._arenas()
        unused = kept()
        del objects[len(objects) // 3:]
        assert kept() == unused  # there is no loop that would give it back
        in_loop(lambda: None)
        assert kept() == 0
        objects += take(40)

        def main():
            objects.clear()
            assert kept() > 20

        in_loop(main)
        assert kept() == 0

    def main():
        objects = take(40)
        del objects[len(objects) // 3:]
        before = _ctask._arenas()
        assert before[2] > 20
        pid = os.fork()
        if pid == 0:
            try:
                # In a thread: this one has a running loop, though it is the parent's.
                failed = []
                threading.excepthook = lambda arguments: failed.append(print(arguments))
                thread = threading.Thread(target=child, args=(objects,))
                thread.start()
                thread.join()
                os._exit(len(failed))
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert _ctask._arenas() == before

    in_loop(main)
    """)


def test_child_that_goes_on_with_the_loop(program):
    program("""
    pids, objects = [], []

    def main():
        pids.append(os.fork())
        objects.extend(take(40))
        loop.call_later(0.01, objects.clear)
        loop.call_later(0.02, objects.extend, take(20))
        loop.call_later(0.03, loop.stop)

    for _ in range(2):
        loop = impl.new_event_loop()
        loop.call_soon(main)
        loop.run_forever()
        loop.close()
        assert kept() == 0
    while pids and pids[-1] != 0:  # not those from before this process
        assert os.waitstatus_to_exitcode(os.waitpid(pids.pop(), 0)[1]) == 0
    """)
