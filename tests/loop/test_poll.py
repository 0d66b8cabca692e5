"""add_reader, add_writer and their removal: return values, replacement, errors."""

import asyncio
import errno
import fcntl
import os
import resource
import socket
import tempfile

import pytest


def callback(*args):
    pass


@pytest.fixture
def pair(loop):
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    yield a, b
    for sock in (a, b):
        if sock.fileno() >= 0 and not loop.is_closed():
            loop.remove_reader(sock)
            loop.remove_writer(sock)
        sock.close()


def test_reader_is_called_while_there_is_something_to_read(loop, pair, turn):
    a, b = pair
    seen = []
    assert loop.add_reader(a, lambda *args: seen.append(args), 1, 2) is None
    turn()
    assert seen == []
    b.send(b"x")
    turn(2)
    turn()
    assert len(seen) >= 2 and set(seen) == {(1, 2)}
    a.recv(10)
    n = len(seen)
    turn(3)
    assert len(seen) <= n + 1  # one may have been on its way


def test_writer_is_called_while_there_is_room(loop, pair, turn):
    a, b = pair
    seen = []
    assert loop.add_writer(a, seen.append, "w") is None
    turn(3)
    assert len(seen) >= 2
    while True:
        try:
            a.send(b"x" * 65536)
        except BlockingIOError:
            break
    turn(2)
    n = len(seen)
    turn(3)
    assert len(seen) == n


def test_remove_says_whether_there_was_one(loop, pair):
    a, _ = pair
    assert loop.remove_reader(a) is False
    assert loop.remove_writer(a) is False
    loop.add_reader(a, callback)
    assert loop.remove_writer(a) is False
    assert loop.remove_reader(a) is True
    assert loop.remove_reader(a) is False
    loop.add_writer(a, callback)
    assert loop.remove_reader(a) is False
    assert loop.remove_writer(a) is True
    assert loop.remove_writer(a) is False


def test_removed_reader_is_not_called(loop, pair, turn):
    a, b = pair
    seen = []
    loop.add_reader(a, seen.append, 1)
    b.send(b"x")
    loop.remove_reader(a)
    turn(2)
    assert seen == []


def test_second_registration_replaces_the_first(loop, pair, turn):
    a, b = pair
    seen = []
    loop.add_reader(a, seen.append, "first")
    loop.add_reader(a, seen.append, "second")
    b.send(b"x")
    turn(2)
    assert set(seen) == {"second"}
    assert loop.remove_reader(a) is True
    assert loop.remove_reader(a) is False


def test_reader_and_writer_of_one_descriptor_are_separate(loop, pair, turn):
    a, b = pair
    seen = []
    loop.add_reader(a, seen.append, "r")
    loop.add_writer(a, seen.append, "w")
    turn(2)
    assert set(seen) == {"w"}
    b.send(b"x")
    seen.clear()
    turn(2)
    assert set(seen) == {"r", "w"}
    assert seen.index("r") < seen.index("w")
    assert loop.remove_writer(a) is True
    turn()
    seen.clear()
    turn(2)
    assert set(seen) == {"r"}
    assert loop.remove_reader(a) is True


def test_number_and_object_mean_the_same(loop, pair):
    a, _ = pair
    loop.add_reader(a.fileno(), callback)
    assert loop.remove_reader(a) is True
    loop.add_writer(a, callback)
    assert loop.remove_writer(a.fileno()) is True


def test_anything_with_fileno_will_do(loop, turn):
    r, w = os.pipe()
    seen = []

    class File:
        def fileno(self):
            return r

    def readable():
        seen.append(os.read(r, 10))
        loop.remove_reader(r)

    loop.add_reader(File(), readable)
    os.write(w, b"x")
    turn(2)
    assert seen == [b"x"]
    os.close(r)
    os.close(w)


def test_reader_sees_the_end_of_the_stream(loop, pair, turn):
    a, b = pair
    seen = []

    def readable():
        seen.append(a.recv(10))
        loop.remove_reader(a)

    loop.add_reader(a, readable)
    b.close()
    turn(2)
    assert seen == [b""]


def test_hang_up_of_a_pipe_calls_reader_and_writer(loop, turn):
    r, w = os.pipe()
    seen = []
    loop.add_reader(r, seen.append, "r")
    os.close(w)
    turn(2)
    assert set(seen) == {"r"}
    loop.remove_reader(r)
    os.close(r)
    r, w = os.pipe()
    seen.clear()
    loop.add_writer(w, seen.append, "w")
    os.close(r)
    turn(2)
    assert set(seen) == {"w"}
    loop.remove_writer(w)
    os.close(w)


def test_removing_another_reader_of_the_same_turn_keeps_it_from_running(loop, turn):
    socks = [socket.socketpair() for _ in range(2)]
    seen = []

    def readable(me):
        seen.append(me)
        loop.remove_reader(socks[1 - me][0])

    for n, (a, b) in enumerate(socks):
        loop.add_reader(a, readable, n)
        b.send(b"x")
    turn(2)
    assert len(set(seen)) == 1
    for a, b in socks:
        loop.remove_reader(a)
        a.close()
        b.close()


def test_reader_that_removes_itself(loop, pair, turn):
    a, b = pair
    seen = []

    def readable():
        seen.append(loop.remove_reader(a))

    loop.add_reader(a, readable)
    b.send(b"x")
    turn(3)
    assert seen == [True]


def test_reader_that_replaces_itself(loop, pair, turn):
    a, b = pair
    seen = []

    def first():
        seen.append("first")
        loop.add_reader(a, second)

    def second():
        seen.append("second")
        loop.remove_reader(a)

    loop.add_reader(a, first)
    b.send(b"x")
    turn(4)
    assert seen == ["first", "second"]


def test_reader_that_closes_its_socket(loop, pair, turn):
    a, b = pair
    seen = []

    def readable():
        loop.remove_reader(a)
        a.close()
        seen.append(1)

    loop.add_reader(a, readable)
    b.send(b"x")
    turn(3)
    assert seen == [1]


def test_exception_in_a_reader_is_reported_and_it_stays(loop, pair, turn, reports):
    a, b = pair

    def bad():
        raise ValueError("bad reader")

    loop.add_reader(a, bad)
    b.send(b"x")
    turn(2)
    got = reports.take()
    assert got
    assert all(set(r) == {"message", "exception", "handle"} for r in got)
    assert isinstance(got[0]["handle"], asyncio.Handle)
    assert loop.remove_reader(a) is True


def test_reader_runs_in_the_context_of_its_registration(loop, pair, turn):
    import contextvars

    a, b = pair
    var = contextvars.ContextVar("var", default="none")
    seen = []
    var.set("then")
    loop.add_reader(a, lambda: (seen.append(var.get()), loop.remove_reader(a)))
    var.set("now")
    b.send(b"x")
    turn(2)
    assert seen == ["then"]


def test_descriptor_beyond_1024(loop, pair, turn):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2000:
        if hard != resource.RLIM_INFINITY and hard < 2000:
            pytest.skip("too few descriptors allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    a, b = pair
    high = fcntl.fcntl(a.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500)
    assert high >= 1500
    seen = []
    loop.add_reader(high, seen.append, 1)
    b.send(b"x")
    turn(2)
    assert seen
    assert loop.remove_reader(high) is True
    os.close(high)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_descriptors_at_once(loop, turn):
    socks = [socket.socketpair() for _ in range(200)]
    seen = set()
    for n, (a, b) in enumerate(socks):
        loop.add_reader(a, seen.add, n)
        b.send(b"x")
    turn(4)
    assert seen == set(range(200))
    for a, b in socks:
        assert loop.remove_reader(a) is True
        a.close()
        b.close()


# --- Errors


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_regular_file_is_refused(loop, method):
    with tempfile.TemporaryFile() as file:
        with pytest.raises(PermissionError) as caught:
            getattr(loop, method)(file, callback)
        assert caught.value.errno == errno.EPERM
        assert loop.remove_reader(file) is False
        assert loop.remove_writer(file) is False


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_number_of_no_open_descriptor(loop, method):
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    with pytest.raises(OSError) as caught:
        getattr(loop, method)(r, callback)
    assert caught.value.errno == errno.EBADF
    assert loop.remove_reader(r) is False
    assert loop.remove_writer(r) is False


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_negative_number(loop, method):
    with pytest.raises(ValueError, match="^Invalid file descriptor: -1$"):
        getattr(loop, method)(-1, callback)


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_closed_socket_is_refused(loop, method):
    sock = socket.socket()
    sock.close()
    args = [callback] if method.startswith("add") else []
    with pytest.raises(ValueError, match="^Invalid file descriptor: -1$"):
        getattr(loop, method)(sock, *args)


@pytest.mark.parametrize("bad", ["x", None, 1.5, object(), b"1"])
@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_what_is_not_a_file(loop, method, bad):
    args = [callback] if method.startswith("add") else []
    with pytest.raises(ValueError, match="^Invalid file object: "):
        getattr(loop, method)(bad, *args)


def test_fileno_that_raises(loop):
    class File:
        def fileno(self):
            raise LookupError("fileno")

    with pytest.raises(LookupError, match="fileno"):
        loop.add_reader(File(), callback)


def test_fileno_that_returns_nonsense(loop):
    class File:
        def fileno(self):
            return "x"

    with pytest.raises(ValueError, match="^Invalid file object: "):
        loop.add_reader(File(), callback)


def test_missing_callback(loop, pair):
    with pytest.raises(TypeError):
        loop.add_reader(pair[0])
    with pytest.raises(TypeError):
        loop.add_writer()


def test_huge_number(loop):
    with pytest.raises((OSError, ValueError, OverflowError)):
        loop.add_reader(2**40, callback)


def test_remove_after_the_descriptor_was_closed(loop, pair):
    a, _ = pair
    number = a.fileno()
    loop.add_reader(a, callback)
    a.close()
    assert loop.remove_reader(number) is True
    assert loop.remove_reader(number) is False


def test_number_that_is_reused_after_removal(loop, turn):
    a, b = socket.socketpair()
    number = a.fileno()
    seen = []
    loop.add_reader(a, seen.append, "old")
    a.close()
    b.close()
    loop.remove_reader(number)
    c, d = socket.socketpair()
    socks = {c.fileno(): (c, d), d.fileno(): (d, c)}
    assert number in socks
    mine, peer = socks[number]
    loop.add_reader(mine, seen.append, "new")
    peer.send(b"x")
    turn(2)
    assert set(seen) == {"new"}
    loop.remove_reader(mine)
    c.close()
    d.close()


def test_descriptor_of_a_transport_is_refused(loop, run):
    async def main():
        a, b = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        for call in (
            lambda: loop.add_reader(a, callback),
            lambda: loop.add_writer(a.fileno(), callback),
            lambda: loop.remove_reader(a),
            lambda: loop.remove_writer(a),
        ):
            with pytest.raises(RuntimeError, match=r"^File descriptor .* is used by transport "):
                call()
        transport.close()
        b.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())


def test_closing_the_loop_forgets_the_readers(loop, pair):
    import gc
    import weakref

    class Thing:
        def __call__(self):
            pass

    a, _ = pair
    thing = Thing()
    ref = weakref.ref(thing)
    loop.add_reader(a, thing)
    del thing
    loop.close()
    gc.collect()
    assert ref() is None
    assert loop.remove_reader(a) is False
