"""When the loop sees what the kernel knows: soon, once in a turn, and for certain."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from helpers.streams import BufferedRecorder, Recorder

TURNS = 4  # asyncio needs two for bytes, and three for a signal


async def count_turns(condition):
    """How many sleep(0) it takes until the condition holds, up to twice as many as may be."""
    n = 0
    while not condition() and n < 2 * TURNS:
        await asyncio.sleep(0)
        n += 1
    return n


@contextlib.contextmanager
def busy(loop, n=3):
    """Tasks that always have something to do."""

    async def work():
        while True:
            await asyncio.sleep(0)

    tasks = [loop.create_task(work()) for _ in range(n)]
    yield
    for task in tasks:
        task.cancel()


def test_bytes_are_seen_within_a_few_turns_of_a_busy_loop(loop, run, link):
    protocol = Recorder()
    _, peer = link(protocol)

    async def main():
        with busy(loop):
            for n in range(1, 4):
                peer.send(b"x")
                assert await count_turns(lambda: len(protocol.data) == n) <= TURNS

    run(main())


def test_sock_recv_sees_bytes_within_a_few_turns_of_a_busy_loop(loop, run):
    a, b = socket.socketpair()

    async def main():
        a.setblocking(False)
        task = loop.create_task(loop.sock_recv(a, 10))
        with busy(loop):
            await asyncio.sleep(0)
            b.send(b"x")
            assert await count_turns(task.done) <= TURNS + 1
        assert await task == b"x"

    with a, b:
        run(main())


def test_signal_is_seen_within_a_few_turns_of_a_busy_loop(loop, run):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        with busy(loop):
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await count_turns(lambda: seen) <= TURNS
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


@pytest.mark.ctask_only  # asyncio has a thread wait for the child, on 3.11 or without pidfds
def test_exit_of_a_child_is_seen_within_a_few_turns_of_a_busy_loop(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import sys; sys.stdin.read()", stdin=subprocess.PIPE
        )
        waiter = loop.create_task(process.wait())
        process.stdin.close()
        await process.stdin.wait_closed()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with busy(loop):
            n = 0
            while not waiter.done():
                await asyncio.sleep(0)
                n += 1
        assert n <= 2 * TURNS
        assert await waiter == 0

    run(main())


def test_zero_timeout_finds_what_was_readable_before(loop, run):
    a, b = socket.socketpair()

    async def main():
        b.send(b"x")
        event = asyncio.Event()
        loop.add_reader(a, event.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), 0)
        loop.remove_reader(a)
        return event.is_set()

    with a, b:
        assert run(main())


def big_link(loop, run, protocol):
    """A connection whose sockets hold more than one read takes."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        peer.connect(listener.getsockname())
        ours, _ = listener.accept()
    peer.setblocking(False)
    transport, _ = run(loop.create_connection(lambda: protocol, sock=ours))
    return transport, peer


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
def test_flood_is_read_once_in_a_turn(loop, run, turn, settle, make):
    protocol = make()
    transport, peer = big_link(loop, run, protocol)
    piece = b"x" * 300_000
    received, most = 0, 0
    for _ in range(60):
        with contextlib.suppress(BlockingIOError):
            peer.send(piece)  # each tells the poller anew
        before = len(protocol.events)
        turn()
        most = max(most, len(protocol.events) - before)
        received = len(protocol.data)
    assert received > len(piece)
    assert most == 1
    transport.abort()
    peer.close()
    settle()


def test_large_and_small_reads_follow_each_other(loop, run, until, settle):
    protocol = Recorder()
    transport, peer = big_link(loop, run, protocol)
    sent = b""
    for size in (1, 40_000, 50_000, 1, 300_000, 100_000, 2, 3):
        piece = bytes([size % 251]) * size
        peer.send(piece)
        sent += piece
        until(lambda: len(protocol.data) == len(sent))
        assert protocol.data == sent
    assert all(type(event[1]) is bytes for event in protocol.events if event[0] == "data_received")
    peer.close()
    until(lambda: protocol.is_lost)
    settle()


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupted_protocol_receives_the_rest_when_the_loop_runs_on(
    loop, run, until, settle, make, exception
):
    interrupted = []

    def interrupt(protocol, *args):
        if not interrupted:
            interrupted.append(1)
            raise exception

    callback = "data_received" if make is Recorder else "buffer_updated"
    protocol = make(**{callback: interrupt})
    transport, peer = big_link(loop, run, protocol)
    sent = 0
    while sent < 600_000:
        sent += peer.send(b"x" * (600_000 - sent))
    with pytest.raises(exception):
        loop.run_forever()
    until(lambda: len(protocol.data) == sent)
    transport.abort()
    peer.close()
    settle()


def test_interrupt_in_connection_made_leaves_a_connection_that_works(loop, run, until, settle):
    def interrupt(protocol, *args):
        raise KeyboardInterrupt

    protocol = Recorder(connection_made=interrupt)
    ours, peer = socket.socketpair()
    task = loop.create_task(loop.create_connection(lambda: protocol, sock=ours))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    transport, _ = run(task)
    peer.send(b"hello")
    until(lambda: protocol.data == b"hello")
    transport.abort()
    peer.close()
    settle()


def test_interrupt_in_eof_received_is_followed_by_another_call(link, loop, until):
    interrupted = []

    def interrupt(protocol):
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt

    protocol = Recorder(eof_received=interrupt)
    _, peer = link(protocol)
    peer.close()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    until(lambda: protocol.is_lost)
    assert protocol.names()[1:] == ["eof_received", "eof_received", "connection_lost"]


class Signalled(Exception):
    pass


@pytest.fixture
def interrupt_sleeping_loop(loop):
    """Has bytes and a signal, whose handler raises, reach the sleeping loop together."""
    lib = ctypes.PyDLL(None)  # keeps the interpreter lock
    thread_id = threading.get_native_id()
    ident = threading.get_ident()

    def raises(*args):
        raise Signalled

    def is_asleep():
        with open(f"/proc/self/task/{thread_id}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"

    def interrupt(fd, data):
        def other_thread():
            while not is_asleep():
                pass
            lib.send(fd, data, len(data), 0)
            lib.pthread_kill(ctypes.c_ulong(ident), int(signal.SIGUSR1))

        thread = threading.Thread(target=other_thread)
        loop.call_soon(thread.start)
        with pytest.raises(Signalled):
            loop.run_forever()
        thread.join()

    interval, handler = sys.getswitchinterval(), signal.signal(signal.SIGUSR1, raises)
    sys.setswitchinterval(10)
    yield interrupt
    sys.setswitchinterval(interval)
    signal.signal(signal.SIGUSR1, handler)


def test_bytes_that_came_with_a_raising_signal_are_received(interrupt_sleeping_loop, link, until):
    protocol = Recorder()
    _, peer = link(protocol)
    interrupt_sleeping_loop(peer.fileno(), b"hello")
    until(lambda: protocol.data == b"hello")


def test_sock_recv_gets_what_came_with_a_raising_signal(loop, run, interrupt_sleeping_loop):
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        task = loop.create_task(loop.sock_recv(a, 10))
        interrupt_sleeping_loop(b.fileno(), b"hello")
        assert run(task) == b"hello"


def test_reader_is_called_for_what_came_with_a_raising_signal(loop, until, interrupt_sleeping_loop):
    a, b = socket.socketpair()
    seen = []
    with a, b:
        a.setblocking(False)
        loop.add_reader(a, lambda: seen.append(a.recv(10)))
        interrupt_sleeping_loop(b.fileno(), b"hello")
        until(lambda: seen)
        loop.remove_reader(a)
    assert seen == [b"hello"]


def test_bytes_before_and_after_urgent_data_are_received(loop, run, until, settle):
    protocol = Recorder()
    transport, peer = big_link(loop, run, protocol)
    peer.send(b"abc")
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"def")
    until(lambda: protocol.data == b"abcdef")
    transport.abort()
    peer.close()
    settle()


def test_sock_recv_waits_on_what_was_put_in_the_place_of_its_descriptor(loop, run):
    a, b = socket.socketpair()
    c, d = socket.socketpair()

    async def main():
        a.setblocking(False)
        c.setblocking(False)  # the flag is the file's, not the descriptor's
        task = loop.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        b.send(b"first")
        assert await task == b"first"
        os.dup2(c.fileno(), a.fileno())
        task = loop.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        d.send(b"second")
        assert await asyncio.wait_for(task, 10) == b"second"

    with a, b, c, d:
        run(main())


def test_receiving_and_sending_wait_on_one_socket_at_a_time_each(loop, run, until):
    """The kernel tells of both sides of a descriptor together; each is told who waits for it."""
    a, b = socket.socketpair()
    for sock in (a, b):
        sock.setblocking(False)

    async def main():
        much = b"x" * (1 << 20)
        receiver = loop.create_task(loop.sock_recv(a, 10))
        sender = loop.create_task(loop.sock_sendall(a, much))
        await asyncio.sleep(0)
        received = 0
        while received < len(much):
            received += len(await loop.sock_recv(b, 1 << 16))
        await sender
        assert not receiver.done()
        await loop.sock_sendall(b, b"end")
        assert await receiver == b"end"

    with a, b:
        run(main())


def test_reader_and_sock_sendall_share_a_descriptor(loop, run):
    a, b = socket.socketpair()
    for sock in (a, b):
        sock.setblocking(False)
    seen = []

    async def main():
        much = b"x" * (1 << 20)
        loop.add_reader(a, lambda: seen.append(a.recv(10)))
        sender = loop.create_task(loop.sock_sendall(a, much))
        await asyncio.sleep(0)
        b.send(b"one")
        received = 0
        while received < len(much):
            received += len(await loop.sock_recv(b, 1 << 16))
        await sender
        b.send(b"two")
        assert await count_turns(lambda: b"".join(seen) == b"onetwo") <= TURNS
        loop.remove_reader(a)

    with a, b:
        run(main())


# ---- its order among what is ready ----


@pytest.fixture
def readable(loop):
    """Two socket pairs, the first socket of each being watched."""
    pairs = [socket.socketpair() for _ in range(2)]
    yield pairs
    for a, b in pairs:
        loop.remove_reader(a)
        a.close()
        b.close()


def watch_all(loop, pairs, seen):
    for i, (a, _) in enumerate(pairs):
        loop.add_reader(a, lambda i=i, a=a: (a.recv(10), seen.append(f"read {i}")))


LONG = 0.0015  # seconds: more than a turn takes by itself


async def work(seen, what, seconds=0.0):
    while True:
        seen.append(what)
        if seconds:
            time.sleep(seconds)
        await asyncio.sleep(0)


@pytest.mark.ctask_only  # asyncio calls readers and timers last
@pytest.mark.parametrize(
    "n, seconds, turns", [(1, LONG, 2), (2, LONG, 2), (3, LONG, 2), (200, LONG, 2), (3, 5e-5, 80)]
)
def test_others_go_before_tasks_that_compute(loop, run, turn, readable, n, seconds, turns):
    """After one long turn, or after many of a length that a turn does not have by itself."""
    seen = []
    watch_all(loop, readable, seen)
    tasks = [loop.create_task(work(seen, i, 0 if i else seconds)) for i in range(n)]
    turn(turns)
    del seen[:]
    for _, b in readable:
        b.send(b"x")
    loop.call_at(loop.time(), seen.append, "timer")
    turn()
    assert seen == ["read 0", "read 1", "timer", *range(n)]
    for task in tasks:
        task.cancel()
    run(asyncio.wait(tasks))


@pytest.mark.ctask_only
def test_due_timers_go_before_tasks_that_compute_though_nothing_is_watched(loop, run, turn):
    seen = []
    task = loop.create_task(work(seen, "work", LONG))
    loop.call_later(3600, seen.append, "never")
    turn(3)
    del seen[:]
    loop.call_at(loop.time(), seen.append, "timer")
    turn()
    assert seen == ["timer", "work"]
    task.cancel()
    run(asyncio.wait([task]))


def test_readers_go_after_tasks_that_yield(loop, run, turn, readable):
    seen = []
    watch_all(loop, readable, seen)
    tasks = [loop.create_task(work(seen, i)) for i in range(2)]
    turn(2)
    for _ in range(20):  # a turn may take long on a busy machine
        del seen[:]
        for _, b in readable:
            b.send(b"x")
        turn()
        if seen == [0, 1, "read 0", "read 1"]:
            break
    else:
        raise AssertionError(seen)
    for task in tasks:
        task.cancel()
    run(asyncio.wait(tasks))


@pytest.mark.ctask_only
def test_signal_waits_once_for_each_task_that_computes_and_yields(loop, run, turn):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")
    task = loop.create_task(work(seen, "work", LONG))
    turn(2)
    del seen[:]
    os.kill(os.getpid(), signal.SIGUSR1)
    turn(2)
    assert seen.index("signal") <= 1
    loop.remove_signal_handler(signal.SIGUSR1)
    task.cancel()
    run(asyncio.wait([task]))


def test_readers_go_after_all_else_that_is_ready(loop, turn, readable):
    seen = []

    async def note(what):
        seen.append(what)

    async def wait(future):
        seen.append(await future)

    watch_all(loop, readable, seen)
    future = loop.create_future()
    waiting = loop.create_task(wait(future))
    turn(2)
    for _, b in readable:
        b.send(b"x")
    loop.call_soon(seen.append, "call_soon")
    started = loop.create_task(note("started"))
    future.set_result("woken")
    loop.call_soon_threadsafe(seen.append, "threadsafe")
    turn()
    assert seen == ["call_soon", "started", "woken", "threadsafe", "read 0", "read 1"]
    assert waiting.done() and started.done()


def test_tasks_that_yield_and_callbacks_keep_their_order(loop, turn, readable):
    """Readers go before the tasks that yield at the end of what is ready, and not before others."""
    seen = []

    async def work(what):
        for _ in range(2):
            seen.append(what)
            await asyncio.sleep(0)

    watch_all(loop, readable, seen)
    first = loop.create_task(work("first"))
    loop.call_soon(loop.call_soon, seen.append, "callback")
    last = loop.create_task(work("last"))
    turn()
    del seen[:]
    for _, b in readable:
        b.send(b"x")
    turn()
    assert [what for what in seen if "read" not in what] == ["first", "callback", "last"]
    assert seen.index("callback") < seen.index("read 0") < seen.index("read 1")
    turn()
    assert first.done() and last.done()


def test_step_that_pauses_reading_comes_before_the_bytes(loop, link, turn, settle):
    """As start_tls() in a new task does: what the peer sends next is not this protocol's."""
    protocol = Recorder()
    transport, peer = link(protocol)

    async def pause():
        transport.pause_reading()

    peer.send(b"x")
    task = loop.create_task(pause())
    turn(3)
    assert protocol.data == b"" and task.done()
    transport.resume_reading()
    settle()
    assert protocol.data == b"x"
