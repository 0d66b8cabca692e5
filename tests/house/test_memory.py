"""Memory that is not needed any more goes back to the system."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize("size", [100_000, 200_000, 1_000_000])
def test_what_was_read_and_dropped_goes_back(memory_script, size):
    # Each body leaves a small record behind, which stays above it in the C library's heap.
    memory_script(f"""
    import time
    SIZE = {size}
    COUNT = 150_000_000 // SIZE
    bodies, records = [], []
    class Protocol(asyncio.Protocol):
        pieces = []
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.pieces.append(data)
            if sum(map(len, self.pieces)) == SIZE:
                bodies.append(b"".join(self.pieces))
                records.append(bytearray(700))
                self.pieces.clear()
                self.transport.write(b"x")
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        payload = bytes(SIZE)
        async def send():
            writer.write(payload)
            await reader.readexactly(1)
        for _ in range(10):
            await send()
        bodies.clear()
        before = resident()
        for _ in range(COUNT):
            await send()
        assert resident() > before + (100 << 20)
        bodies.clear()
        end = time.monotonic() + 10
        while resident() > before + (50 << 20):
            assert time.monotonic() < end, resident()
            await asyncio.sleep(0.01)
        writer.close()
        server.close()
    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        runner.run(main())
    """)


@pytest.mark.ctask_only  # it is about what the loop does with the C library's heap
def test_heap_is_not_trimmed_for_little(memory_script):
    memory_script("""
    import time
    MIB = 1 << 20
    async def main():
        await asyncio.sleep(0)
        before = resident()
        blocks, records = [], []
        for _ in range(1000):
            blocks.append(bytes(100_000))
            records.append(bytearray(700))  # so that what is below it does not go back by itself
        blocks.clear()
        end = time.monotonic() + 10
        while resident() > before + 20 * MIB:
            assert time.monotonic() < end, resident()
            await asyncio.sleep(0.01)
        trimmed = resident()
        blocks = [bytes(100_000) for _ in range(40)]
        blocks.clear()
        assert resident() > trimmed + 3 * MIB
        for _ in range(20):
            await asyncio.sleep(0.05)
        assert resident() > trimmed + 3 * MIB
        blocks = [bytes(100_000) for _ in range(400)]
        blocks.clear()
        end = time.monotonic() + 10
        while resident() > trimmed + 3 * MIB:
            assert time.monotonic() < end, resident()
            await asyncio.sleep(0.01)
    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        runner.run(main())
    """)


@pytest.mark.ctask_only  # as above
def test_what_was_in_use_when_the_heap_was_trimmed_goes_back_later(memory_script):
    memory_script("""
    import time
    async def main():
        await asyncio.sleep(0)
        before = resident()
        blocks, records = [], []
        for _ in range(1000):
            blocks.append(b"x" * 100_000)
            records.append(bytearray(700))  # so that what is below it does not go back by itself
        for _ in range(10):
            await asyncio.sleep(0.1)  # the loop trims a heap in which all is used
        assert resident() > before + (90 << 20)
        blocks.clear()
        end = time.monotonic() + 10
        while resident() > before + (20 << 20):
            assert time.monotonic() < end, resident()
            await asyncio.sleep(0.01)
    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        runner.run(main())
    """)


@pytest.mark.ctask_only
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_heap_is_trimmed_again_soon_on_a_busy_machine(tmp_path, memory_goes_back):
    """What counts is the time that the loop lost, not that of other processes meanwhile."""
    source = tmp_path / "trim.c"
    source.write_text(
        textwrap.dedent("""
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <time.h>

        int
        malloc_trim(size_t pad)
        {
            int (*trim)(size_t) = (int (*)(size_t))dlsym(RTLD_NEXT, "malloc_trim");
            nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL); /* as if preempted */
            return trim(pad);
        }
        """)
    )
    library = tmp_path / "trim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    program = """
    import asyncio, ctask, os, time
    records = []
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    async def use_and_wait():
        blocks = []
        for _ in range(1000):
            blocks.append(bytes(100_000))
            records.append(bytearray(700))
        blocks.clear()
        begun = time.monotonic()
        while resident() > before + (20 << 20):
            assert time.monotonic() < begun + 5, resident()
            await asyncio.sleep(0.01)
    async def main():
        global before
        await asyncio.sleep(0)
        before = resident()
        await use_and_wait()
        await use_and_wait()
    ctask.run(main())
    """
    environment = dict(os.environ, LD_PRELOAD=str(library))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
