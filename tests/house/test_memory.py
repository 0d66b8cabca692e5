"""Memory that is not needed any more goes back to the system."""

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
