"""Sockets that are not as usual: of a subclass, patched, with another file behind the number."""

import asyncio
import os
import socket
import struct
import threading
import time
from unittest import mock

import pytest

REAL = socket.socket


class Shouting(socket.socket):
    """Everything that comes or goes is upper case, and what was called is on record."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def recv(self, *args):
        self.calls.append("recv")
        return super().recv(*args).upper()

    def recv_into(self, buffer, *args):
        self.calls.append("recv_into")
        n = super().recv_into(buffer, *args)
        memoryview(buffer)[:n] = bytes(memoryview(buffer)[:n]).upper()
        return n

    def recvfrom(self, *args):
        self.calls.append("recvfrom")
        data, address = super().recvfrom(*args)
        return data.upper(), address

    def recvfrom_into(self, buffer, *args):
        self.calls.append("recvfrom_into")
        n, address = super().recvfrom_into(buffer, *args)
        memoryview(buffer)[:n] = bytes(memoryview(buffer)[:n]).upper()
        return n, address

    def send(self, data, *args):
        self.calls.append("send")
        return super().send(bytes(data).upper(), *args)

    def sendto(self, data, *args):
        self.calls.append("sendto")
        return super().sendto(bytes(data).upper(), *args)

    def connect(self, address):
        self.calls.append("connect")
        return super().connect(address)

    def accept(self):
        self.calls.append("accept")
        return super().accept()

    def shutdown(self, how):
        self.calls.append("shutdown")
        return super().shutdown(how)

    def close(self):
        self.calls.append("close")
        return super().close()


@pytest.fixture
def shouting():
    """A socket of a subclass and its peer."""
    a, b = socket.socketpair()
    with Shouting(fileno=a.detach()) as ours, b:
        ours.setblocking(False)
        b.setblocking(False)
        yield ours, b


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()


async def settle():
    for _ in range(3):
        await asyncio.sleep(0)


# ---- sock_*()


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("method", ["recv", "recv_into", "recvfrom", "recvfrom_into"])
def test_receiving_calls_the_methods_of_a_subclass(loop, run, shouting, method, waits):
    ours, peer = shouting

    async def main():
        buffer = bytearray(10)
        coro = getattr(loop, f"sock_{method}")(ours, buffer if "into" in method else 10)
        if waits:
            task = loop.create_task(coro)
            await settle()
            peer.send(b"abc")
            got = await task
        else:
            peer.send(b"abc")
            got = await coro
        return buffer[:3] if "into" in method else got[0] if method == "recvfrom" else got

    assert run(main()) == b"ABC"
    assert set(ours.calls) == {method}


def test_sending_connecting_and_accepting_call_the_methods_of_a_subclass(loop, run, shouting):
    ours, peer = shouting

    async def main():
        await loop.sock_sendall(ours, b"abc")
        assert peer.recv(10) == b"ABC"
        with Shouting() as listener, Shouting() as client:
            listener.setblocking(False)
            client.setblocking(False)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            task = loop.create_task(loop.sock_accept(listener))
            await loop.sock_connect(client, listener.getsockname())
            conn, _ = await task
            conn.close()
            assert client.calls == ["connect"]
            assert set(listener.calls) == {"accept"}
        with Shouting(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
            a.setblocking(False)
            b.bind(("127.0.0.1", 0))
            await loop.sock_sendto(a, b"abc", b.getsockname())
            assert b.recv(10) == b"ABC"

    run(main())
    assert ours.calls == ["send"]


def test_a_method_that_is_patched_while_an_operation_waits_is_called(loop, run, pair, monkeypatch):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        monkeypatch.setattr(REAL, "recv", lambda sock, n: b"patched", raising=False)
        b.send(b"abc")
        assert await task == b"patched"
        monkeypatch.undo()
        assert await loop.sock_recv(a, 10) == b"abc"

    run(main())


def test_send_that_is_patched_while_sendall_waits_gets_the_rest(loop, run, pair, monkeypatch):
    a, b = pair
    data = bytes(range(256)) * 8192
    got = bytearray()
    patched = []

    def send(sock, view):
        patched.append(len(view))
        return base_send(sock, bytes(view))

    base_send = REAL.send

    async def main():
        task = loop.create_task(loop.sock_sendall(a, data))
        await settle()
        monkeypatch.setattr(REAL, "send", send, raising=False)
        while len(got) < len(data):
            got.extend(await loop.sock_recv(b, 1 << 16))
        await task
        monkeypatch.undo()

    run(main())
    assert got == data
    assert patched


@pytest.mark.parametrize("name", ["fileno", "accept", "gettimeout", "close", "connect"])
def test_any_patched_method_is_seen(loop, run, pair, name, monkeypatch):
    calls = []
    original = getattr(REAL, name)

    def patched(sock, *args):
        calls.append(name)
        return original(sock, *args)

    monkeypatch.setattr(REAL, name, patched, raising=False)

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        client = socket.socket()
        client.setblocking(False)
        task = loop.create_task(loop.sock_accept(listener))
        await settle()
        await loop.sock_connect(client, listener.getsockname())
        conn, _ = await task
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=conn)
        transport.close()
        await settle()
        loop.set_debug(True)
        with pytest.raises(BlockingIOError):
            client.setblocking(False)
            await loop.sock_sendall(client, b"x")
            raise BlockingIOError
        loop.set_debug(False)
        client.close()
        listener.close()

    run(main())
    monkeypatch.undo()
    assert calls


# ---- transports


class Recorder(asyncio.Protocol):
    def __init__(self):
        self.got = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def test_a_transport_calls_the_methods_of_a_subclass(loop, run, shouting):
    ours, peer = shouting

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        peer.send(b"in")
        while not protocol.got:
            await asyncio.sleep(0)
        assert protocol.got == b"IN"
        transport.write(b"out")
        assert await loop.sock_recv(peer, 10) == b"OUT"
        transport.write_eof()
        assert await loop.sock_recv(peer, 10) == b""
        transport.close()
        assert await protocol.lost is None

    run(main())
    assert {"recv", "send", "shutdown", "close"} <= set(ours.calls)


def test_streams_over_a_socket_of_a_subclass(loop, run, shouting):
    ours, peer = shouting

    async def main():
        reader, writer = await asyncio.open_connection(sock=ours)
        peer.send(b"line\nrest")
        assert await reader.readline() == b"LINE\n"
        writer.write(b"answer")
        await writer.drain()
        assert await loop.sock_recv(peer, 10) == b"ANSWER"
        peer.shutdown(socket.SHUT_WR)
        assert await reader.read() == b"REST"
        writer.close()
        await writer.wait_closed()

    run(main())


def test_a_subclass_without_methods_of_its_own_may_be_patched_on_the_instance(loop, run, pair):
    class Named(socket.socket):
        pass

    a, b = pair
    ours = Named(fileno=a.detach())
    ours.setblocking(False)

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        with mock.patch.object(ours, "recv", side_effect=[b"patched"]):
            b.send(b"x")
            while not protocol.got:
                await asyncio.sleep(0)
        assert protocol.got == b"patched"
        transport.abort()
        await protocol.lost

    run(main())


def test_waiting_for_what_a_transport_of_a_subclass_uses_is_refused(loop, run, shouting, pair):
    ours, _ = shouting

    async def main():
        task = loop.create_task(loop.sock_recv(pair[0], 10))
        await settle()
        pair[1].send(b"x")
        assert await task == b"x"
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        other = socket.socket(fileno=ours.fileno())
        try:
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_recv(other, 10)
        finally:
            other.detach()
        transport.abort()
        await protocol.lost
        task = loop.create_task(loop.sock_recv(pair[0], 10))
        await settle()
        pair[1].send(b"y")
        assert await task == b"y"

    run(main())


def test_datagram_endpoint_over_a_socket_of_a_subclass(loop, run):
    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.got = loop.create_future()
            self.lost = loop.create_future()

        def datagram_received(self, data, address):
            self.got.set_result(data)

        def connection_lost(self, exc):
            self.lost.set_result(None)

    async def main():
        ours = Shouting(type=socket.SOCK_DGRAM)
        ours.bind(("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(5)
            transport, protocol = await loop.create_datagram_endpoint(Protocol, sock=ours)
            peer.sendto(b"in", ours.getsockname())
            assert await protocol.got == b"IN"
            transport.sendto(b"out", peer.getsockname())
            assert peer.recv(10) == b"OUT"
            transport.close()
            await protocol.lost
        assert {"recvfrom", "sendto", "close"} <= set(ours.calls)

    run(main())


def test_a_server_on_a_socket_of_a_subclass_accepts_by_its_method(loop, run):
    listener = Shouting()
    listener.bind(("127.0.0.1", 0))

    async def main():
        server = await loop.create_server(asyncio.Protocol, sock=listener)
        transport, protocol = await loop.create_connection(Recorder, *listener.getsockname())
        while "accept" not in listener.calls:
            await asyncio.sleep(0)
        await settle()
        transport.abort()
        await protocol.lost
        server.close()
        await server.wait_closed()

    run(main())


# ---- socket.socket is another one


def test_a_function_in_place_of_the_class(loop, run, pair):
    def factory(*args, **kwargs):
        return REAL(*args, **kwargs)

    async def main():
        with mock.patch("socket.socket", factory):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            made = [
                await loop.create_connection(Recorder, sock=pair[0]),
                await loop.create_connection(Recorder, *address),
            ]
            endpoint, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            pair[1].send(b"x")
            while not made[0][1].got:
                await asyncio.sleep(0)
            await settle()
            endpoint.abort()
            for transport, protocol in made:
                transport.abort()
                await protocol.lost
            server.close()
            await server.wait_closed()
            await settle()

    run(main())


def test_what_is_accepted_is_made_of_the_class_that_is_there(loop, run):
    made = []

    class Other(REAL):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            task = loop.create_task(loop.sock_accept(listener))
            await settle()
            with mock.patch("socket.socket", Other), REAL() as client:
                client.setblocking(False)
                await loop.sock_connect(client, listener.getsockname())
                conn, _ = await task
            with conn:
                assert made == [conn]
                assert type(conn) is Other

    run(main())
    made.clear()


def test_what_a_server_accepts_is_made_of_the_class_that_is_there(loop, run):
    made = []

    class Other(REAL):
        def __init__(self, *args, **kwargs):
            made.append(type(self))
            super().__init__(*args, **kwargs)

        def recv(self, *args):
            return super().recv(*args).upper()

    async def main():
        accepted = []

        def factory():
            accepted.append(Recorder())
            return accepted[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with REAL() as client:
            client.setblocking(False)
            with mock.patch("socket.socket", Other):
                await loop.sock_connect(client, server.sockets[0].getsockname())
                client.send(b"abc")
                while not (accepted and accepted[0].got):
                    await asyncio.sleep(0)
            assert accepted[0].got == b"ABC"
            accepted[0].transport.abort()
            await accepted[0].lost
        server.close()
        await server.wait_closed()

    run(main())
    assert made == [Other]


@pytest.mark.ctask_only
@pytest.mark.parametrize(
    "replacement",
    [
        "lambda *args, **kwargs: real(*args, **kwargs)",
        "type('Other', (real,), {})",
        "type('NoSocket', (), {'__init__': lambda self, *args, **kwargs: None})",
    ],
)
def test_the_class_is_replaced_before_ctask_is_imported(script, replacement):
    result = script(
        f"""
        import asyncio, socket
        real = socket.socket
        socket.socket = {replacement}
        import ctask
        socket.socket = real

        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair()
            a.setblocking(False)
            assert loop._is_plain_socket(a)
            await loop.sock_sendall(a, b"abc")
            print(b.recv(10))
            async def serve(reader, writer):
                assert type(writer._transport._sock) is real
                writer.write(await reader.read())
                writer.close()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"def")
            writer.write_eof()
            print(await reader.read())
            writer.close()
            await writer.wait_closed()
            server.close()
        ctask.run(main())
        """,
        bare=True,
    )
    assert result.out.split() == ["b'abc'", "b'def'"]


# ---- another file behind the number


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_another_file_is_put_in_place_of_a_sockets_own(loop, run, kind):
    def make_pair():
        if kind == "unix":
            return socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = socket.create_connection(listener.getsockname())
            return a, listener.accept()[0]

    async def main():
        a, b = make_pair()
        c, d = make_pair()
        with a, b, c, d:
            a.setblocking(False)
            c.setblocking(False)
            for peer in (b, d):
                task = loop.create_task(loop.sock_recv(a, 10))
                await settle()
                peer.send(b"to this")
                assert await task == b"to this"
                await loop.sock_sendall(a, b"answer")
                assert peer.recv(10) == b"answer"
                os.dup2(c.fileno(), a.fileno())

    run(main())


def clear_nonblocking(sock):
    """As a process does that shares the description, and knows nothing of ours."""
    duplicate = os.dup(sock.fileno())
    os.set_blocking(duplicate, True)
    os.close(duplicate)


@pytest.mark.ctask_only
@pytest.mark.parametrize("operation", ["recv", "recvfrom", "sendall", "accept", "sendto"])
def test_an_operation_waits_in_the_loop_whoever_cleared_the_nonblocking_flag(
    loop, run, operation, tmp_path
):
    """asyncio's stops the loop, though not the process."""

    async def main():
        a, b = socket.socketpair(
            type=socket.SOCK_DGRAM if operation == "sendto" else socket.SOCK_STREAM
        )
        listener = socket.create_server(("127.0.0.1", 0))
        with a, b, listener:
            sock = listener if operation == "accept" else a
            sock.setblocking(False)
            clear_nonblocking(sock)
            if operation == "sendto":
                a.close()
                b.close()
                a, b = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
                b.bind(str(tmp_path / "b"))
                a.setblocking(False)
                try:
                    while True:
                        a.sendto(bytes(1000), str(tmp_path / "b"))
                except BlockingIOError:
                    clear_nonblocking(a)
                coro = loop.sock_sendto(a, b"x", str(tmp_path / "b"))
            elif operation == "sendall":
                coro = loop.sock_sendall(a, bytes(1 << 22))
            elif operation == "accept":
                coro = loop.sock_accept(listener)
            else:
                coro = getattr(loop, f"sock_{operation}")(a, 10)
            task = loop.create_task(coro)
            await settle()
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
            a.close()
            b.close()

    run(main())


@pytest.mark.ctask_only
def test_accepting_goes_on_whoever_cleared_the_nonblocking_flag(loop, run):
    async def main():
        accepted = []

        def factory():
            accepted.append(Recorder())
            return accepted[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        clear_nonblocking(server.sockets[0])
        for n in (1, 2, 3):
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.send(b"x")
                while len(accepted) < n or not accepted[-1].got:
                    await asyncio.sleep(0)
            await accepted[-1].lost
        server.close()
        await server.wait_closed()

    run(main())


def test_closing_a_connection_that_lingers_leaves_other_threads_running(loop, run):
    """Accepted sockets have SO_LINGER from the listening one."""
    linger = 5
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
    listener.bind(("127.0.0.1", 0))

    async def main():
        accepted = loop.create_future()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.set_result(self)

        server = await loop.create_server(Server, sock=listener)
        peer = socket.create_connection(listener.getsockname())
        protocol = await accepted
        protocol.transport.write(bytes(1 << 23))
        closes = threading.Event()

        def end_it():
            closes.wait()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()  # a reset: nothing is left to wait for

        thread = threading.Thread(target=end_it)
        thread.start()
        begun = time.monotonic()
        closes.set()
        protocol.transport.abort()
        await protocol.lost
        await settle()
        assert time.monotonic() - begun < linger
        thread.join()
        server.close()
        await server.wait_closed()

    run(main())
