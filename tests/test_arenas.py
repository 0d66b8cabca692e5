"""Pages for much memory: when an arena comes with all of them, and when not. Each test is about a
process of its own.
"""

import ctypes
import mmap
import os

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

# take(n): objects of almost n MiB.
HELPERS = """
import os, threading
from ctask import _ctask

def take(mebibytes):
    return [[i] for i in range(mebibytes * 8000)]

def resident():
    with open("/proc/self/smaps_rollup") as file:
        return int(file.read().split("Rss:")[1].split()[0]) // 4  # pages

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
            while _ctask._arenas() == before:
                if n % 100 == 0:
                    pages = [pages[1], resident()]
                kept[n] = [n]
                n += 1
            assert _ctask._arenas() == (before[0] + 1, before[1] + 1)
            assert resident() - pages[0] > 200, (resident(), pages)
            objects.append(kept[:])

    in_loop(main)
    """)


def test_small_program_gets_its_pages_one_by_one(program):
    program("""
    def main():
        objects = take(16)
        alive, populated = _ctask._arenas()
        assert 10 < alive <= 32 and populated == 0, (alive, populated)

    in_loop(main)
    """)


@populates
def test_what_comes_and_goes_is_touched_as_ever(program):
    program("""
    def main():
        objects = take(64)
        alive, populated = _ctask._arenas()
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


def test_not_before_a_loop_runs(program):
    program("""
    loop = impl.new_event_loop()
    objects = take(64)
    assert _ctask._arenas() == (0, 0)
    loop.close()
    """)


def test_arenas_from_before_are_given_back(program):
    program("""
    objects = take(128)
    pages = resident()

    def main():
        global objects
        more = take(8)
        objects = None
        assert resident() < pages - 100 * 256 + 10 * 256, (resident(), pages)
        assert _ctask._arenas()[0] < 0
        more += take(8)

    in_loop(main)
    """)


def test_threads_and_loops_one_after_the_other(program):
    program("""
    kept = []

    def run():
        for _ in range(3):
            kept.append(in_loop(lambda: take(8)))
            kept.pop(0)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not kept
    """)


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
    def main():
        objects = take(40)
        before = _ctask._arenas()[0]
        pid = os.fork()
        if pid == 0:
            objects += take(40)
            os._exit(0 if _ctask._arenas()[0] > before + 20 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert _ctask._arenas()[0] == before

    in_loop(main)
    """)
