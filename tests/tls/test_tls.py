"""TLS: what the transport, the protocol and the peer (tls_peer.py) see of it."""

import asyncio
import contextvars
import gc
import logging
import random
import socket
import ssl
import struct
import sys
import warnings
import weakref

import pytest
from helpers.streams import MUCH, Recorder, make_pair
from helpers.tls_peer import Peer, PlainObject, Session, Viewed, client_context, server_context


class VerifyingObject(ssl.SSLObject):
    """As truststore's: more is done in the handshake, and data goes its usual way."""

    handshakes = 0

    def do_handshake(self):
        VerifyingObject.handshakes += 1
        super().do_handshake()


# ---- data ----


@pytest.fixture(params=[Recorder, Viewed])
def recorder(request):
    return request.param()


def test_what_is_sent_arrives(session, side, recorder, steps):
    s = session(side, recorder)
    assert recorder.events == [("connection_made",)]
    assert recorder.transport is s.transport
    s.peer.to_send = b"hello"
    steps(s.peer, lambda: recorder.data == b"hello")
    s.transport.write(b"answer")
    steps(s.peer, lambda: s.peer.data == b"answer")


def test_much_arrives_in_order_in_both_directions(session, side, recorder, steps):
    s = session(side, recorder)
    s.peer.to_send = MUCH
    s.transport.write(MUCH)
    steps(s.peer, lambda: len(recorder.data) >= len(MUCH) and len(s.peer.data) >= len(MUCH))
    assert recorder.data == MUCH
    assert s.peer.data == MUCH


def test_a_record_that_comes_byte_by_byte(session, recorder, until, turn):
    s = session("client", recorder)
    s.peer.tls.write(b"one")
    s.peer.tls.write(b"two")
    for byte in s.peer.outgoing.read():
        assert recorder.data in (b"", b"one")
        s.peer.sock.send(bytes([byte]))
        turn(2)
    until(lambda: recorder.data == b"onetwo")


def test_records_that_come_together_are_one_call(session, until):
    proto = Recorder()
    s = session("client", proto)
    s.peer.tls.write(b"one")
    s.peer.tls.write(b"two")
    s.peer.send()
    until(lambda: proto.data)
    assert proto.events[1:] == [("data_received", b"onetwo")]


class SmallBuffer(asyncio.BufferedProtocol):
    def __init__(self, size):
        self.buffer = bytearray(size)
        self.data = b""
        self.sizes = []

    def get_buffer(self, sizehint):
        assert sizehint >= 0
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.sizes.append(nbytes)
        self.data += self.buffer[:nbytes]


def test_a_small_buffer_is_filled_again_and_again(session, steps):
    proto = SmallBuffer(1000)
    s = session("server", proto)
    s.peer.to_send = MUCH[:50_000]
    steps(s.peer, lambda: len(proto.data) == 50_000)
    assert proto.data == MUCH[:50_000]
    assert max(proto.sizes) == 1000


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(b"x" + b)[1:]])
def test_kinds_of_data(session, steps, kind):
    s = session("client", Recorder())
    data = MUCH[:70_000]
    s.transport.write(kind(data))
    s.transport.writelines([kind(b"a"), kind(b""), kind(b"b")])
    s.transport.write(kind(b""))
    steps(s.peer, lambda: s.peer.data == data + b"ab")


def test_data_that_changes_after_write_was_sent_as_it_was(session, steps):
    s = session("client", Recorder())
    data = bytearray(b"before")
    s.transport.write(data)
    data[:] = b"after!"
    steps(s.peer, lambda: s.peer.data == b"before")


@pytest.mark.parametrize("data", ["text", 1, None, [1]])
def test_write_refuses_what_is_not_bytes(session, data):
    s = session("client", Recorder())
    with pytest.raises(TypeError) as caught:
        s.transport.write(data)
    assert str(caught.value) == (
        f"data: expecting a bytes-like instance, got {type(data).__name__}"
    )


def test_what_is_written_in_connection_made_is_sent(session, steps):
    class Eager(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"first")
            transport.writelines([b"se", b"cond"])

    s = session("server", Eager())
    steps(s.peer, lambda: s.peer.data == b"firstsecond")


def test_what_is_written_in_data_received_is_sent_in_order(session, steps):
    class Echo(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"head:")
            self.transport.write(MUCH[:20_000])
            self.transport.writelines([b"-", b"-"])
            self.transport.write(b"tail")

    s = session("server", Echo())
    s.peer.to_send = b"go"
    wanted = b"head:" + MUCH[:20_000] + b"--tail"
    steps(s.peer, lambda: len(s.peer.data) >= len(wanted))
    assert s.peer.data == wanted


# ---- what is told of the connection ----


def test_extra_info(session, side):
    s = session(side, Recorder())
    get = s.transport.get_extra_info
    tls = get("ssl_object")
    assert isinstance(tls, ssl.SSLObject)
    assert isinstance(get("sslcontext"), ssl.SSLContext)
    assert get("cipher") == tls.cipher()
    assert get("compression", 1) is None
    assert get("peercert") == (tls.getpeercert() if side == "client" else None)
    if side == "client":
        assert ("DNS", "localhost") in get("peercert")["subjectAltName"]
    assert get("socket").getpeername() == get("peername") == s.peer.sock.getsockname()
    assert get("nothing") is None
    assert get("nothing", 1) == 1
    s.transport.abort()


def test_extra_info_outlives_the_connection(session, steps):
    proto = Recorder()
    s = session("client", proto)
    s.transport.abort()
    steps(s.peer, lambda: proto.is_lost)
    assert s.transport.get_extra_info("cipher")
    assert ("DNS", "localhost") in s.transport.get_extra_info("peercert")["subjectAltName"]


def test_the_transport_is_one(session):
    proto = Recorder()
    s = session("client", proto)
    assert isinstance(s.transport, asyncio.Transport)
    assert s.transport.get_protocol() is proto
    assert s.transport.can_write_eof() is False
    with pytest.raises(NotImplementedError):
        s.transport.write_eof()
    assert s.transport.is_reading() is True
    assert s.transport.is_closing() is False
    assert s.transport.get_write_buffer_size() == 0
    assert s.transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
    s.transport.set_write_buffer_limits(high=100)
    assert s.transport.get_write_buffer_limits() == (25, 100)
    s.transport.set_write_buffer_limits(low=100)
    assert s.transport.get_write_buffer_limits() == (100, 400)
    with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
        s.transport.set_write_buffer_limits(high=1, low=2)
    with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(-2\) must be >= 0"):
        s.transport.set_write_buffer_limits(high=1, low=-2)
    with pytest.raises(TypeError):
        s.transport.set_write_buffer_limits(high="1")
    s.transport.set_write_buffer_limits(high=float("inf"), low=0)
    assert s.transport.get_write_buffer_limits() == (0, sys.maxsize)
    s.transport.note = "an attribute"
    assert s.transport.note == "an attribute"
    assert weakref.ref(s.transport)() is s.transport


def test_set_protocol_in_the_middle(session, steps):
    first, second = Recorder(), Viewed()
    s = session("client", first)
    s.peer.to_send = b"one"
    steps(s.peer, lambda: first.data == b"one")
    s.transport.set_protocol(second)
    assert s.transport.get_protocol() is second
    s.peer.to_send = b"two"
    steps(s.peer, lambda: second.data == b"two")
    s.transport.abort()
    steps(s.peer, lambda: second.is_lost)
    assert not first.is_lost


def test_alpn(session, side, way):
    client, server = client_context(), server_context()
    client.set_alpn_protocols(["h2", "http/1.1"])
    server.set_alpn_protocols(["http/1.1"])
    ours, theirs = (client, server) if side == "client" else (server, client)
    if way == "python":
        ours.sslobject_class = PlainObject
    s = session(side, Recorder(), ours, theirs)
    assert s.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


def test_sni(session, way):
    names = []
    server = server_context(way)
    server.sni_callback = lambda tls, name, context: names.append((type(tls), name))
    session("server", Recorder(), server)
    assert names == [(PlainObject if way == "python" else ssl.SSLObject, "localhost")]


def test_a_client_with_a_certificate(session, way):
    s = session(
        "server", Recorder(), server_context(way, ask=True), client_context(cert="client.pem")
    )
    subject = s.transport.get_extra_info("peercert")["subject"]
    assert subject == ((("commonName", "client"),),)


def test_authentication_after_the_handshake(session, steps, way):
    client = client_context(way, cert="client.pem")
    client.post_handshake_auth = True
    server = server_context(ask=True)
    server.verify_mode = ssl.CERT_OPTIONAL
    server.post_handshake_auth = True
    server.verify_mode = ssl.CERT_REQUIRED
    s = session("client", Recorder(), client, server)
    s.peer.tls.verify_client_post_handshake()
    s.peer.to_send = b"who are you?"
    s.transport.write(b"me")
    steps(s.peer, lambda: s.protocol.data and s.peer.data == b"me" and s.peer.tls.getpeercert())
    assert s.peer.tls.getpeercert()["subject"] == ((("commonName", "client"),),)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(session, side, steps, way, version):
    client, server = client_context(), server_context()
    ours, theirs = (client, server) if side == "client" else (server, client)
    if way == "python":
        ours.sslobject_class = PlainObject
    ours.minimum_version = ours.maximum_version = version
    s = session(side, Recorder(), ours, theirs)
    s.peer.to_send = b"hello"
    s.transport.write(b"hello")
    steps(s.peer, lambda: s.protocol.data == s.peer.data == b"hello")
    assert s.transport.get_extra_info("cipher")[1] in ("TLSv1.2", "TLSv1.3")


# ---- handshakes that fail ----


def test_a_certificate_of_nobody(begin, steps, side, way):
    if side == "client":
        ours, theirs = ssl.create_default_context(), server_context()
        if way == "python":
            ours.sslobject_class = PlainObject
        expected = ssl.SSLCertVerificationError
    else:
        ours, theirs = server_context(way), ssl.create_default_context()
        expected = ssl.SSLError
    proto = Recorder()
    task, peer = begin(side, proto, ours, theirs)
    if side == "server":
        with pytest.raises(ssl.SSLCertVerificationError):
            steps(peer, task.done)
        peer.send()
        peer.stopped = True
    steps(peer, task.done)
    with pytest.raises(expected) as caught:
        task.result()
    if side == "client":
        assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
    assert proto.events == []


@pytest.mark.ctask_only  # asyncio before 3.15 leaves a cycle
def test_a_failed_handshake_leaves_nothing_to_the_collector(loop, begin, steps, way, settle):
    made = []
    make = loop._make_socket_transport

    def remember(sock, protocol, *args, **kwargs):
        transport = make(sock, protocol, *args, **kwargs)
        made.extend(weakref.ref(thing) for thing in (transport, protocol))
        return transport

    loop._make_socket_transport = remember
    context = ssl.create_default_context()
    if way == "python":
        context.sslobject_class = PlainObject
    gc.collect()
    gc.disable()
    try:
        task, peer = begin("client", Recorder(), context, server_context())
        steps(peer, task.done)
        assert isinstance(task.exception(), ssl.SSLCertVerificationError)
        del task
        settle()
        assert [thing() for thing in made] == [None, None]
    finally:
        gc.enable()
        del loop._make_socket_transport


def test_the_certificate_of_somebody_else(begin, steps, way):
    task, peer = begin(
        "client", Recorder(), client_context(way), server_context(), server_hostname="example.org"
    )
    steps(peer, task.done)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        task.result()


def test_a_peer_that_does_not_speak_tls(begin, until, side, way):
    context = client_context(way) if side == "client" else server_context(way)
    task, peer = begin(
        side, Recorder(), context, server_context() if side == "client" else client_context()
    )
    peer.sock.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
    until(task.done)
    with pytest.raises(ssl.SSLError) as caught:
        task.result()
    assert caught.value.library == "SSL"


def test_the_end_in_the_middle_of_the_handshake(begin, until, side, way):
    context = client_context(way) if side == "client" else server_context(way)
    task, peer = begin(
        side, Recorder(), context, server_context() if side == "client" else client_context()
    )
    peer.sock.close()
    until(task.done)
    with pytest.raises(ConnectionResetError):
        task.result()


def test_a_handshake_that_takes_too_long(begin, until, way):
    task, peer = begin(
        "client", Recorder(), client_context(way), server_context(), ssl_handshake_timeout=0.05
    )
    until(task.done)
    with pytest.raises(ConnectionAbortedError) as caught:
        task.result()
    assert str(caught.value) == (
        "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
    )


def test_a_handshake_that_is_cancelled(begin, until, settle, way):
    proto = Recorder()
    task, peer = begin("client", proto, client_context(way), server_context())
    task.cancel()
    until(task.done)
    assert task.cancelled()
    settle()
    peer.receive()
    assert peer.eof
    assert proto.events == []


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_timeouts_are_positive(loop, run, name):
    ours, peer = make_pair("tcp")
    with pytest.raises(ValueError) as caught:
        run(
            loop.create_connection(
                Recorder, sock=ours, ssl=client_context(), server_hostname="x", **{name: 0}
            )
        )
    assert str(caught.value) == f"{name} should be a positive number, got 0"
    ours.close()
    peer.close()


# ---- the end ----


def test_close_says_so_to_the_peer(session, side, steps):
    proto = Recorder()
    s = session(side, proto)
    s.transport.write(b"bye")
    s.transport.close()
    assert s.transport.is_closing()
    steps(s.peer, lambda: s.peer.notified)
    assert s.peer.data == b"bye"
    assert not proto.is_lost
    assert s.peer.unwrap()
    steps(s.peer, lambda: proto.is_lost)
    assert proto.events == [("connection_made",), ("eof_received",), ("connection_lost", None)]
    s.transport.close()  # harmless


def test_the_peer_closes(session, side, steps, until):
    proto = Recorder()
    s = session(side, proto)
    s.peer.tls.write(b"bye")
    assert not s.peer.unwrap()
    until(lambda: proto.is_lost)
    assert proto.events == [
        ("connection_made",),
        ("data_received", b"bye"),
        ("eof_received",),
        ("connection_lost", None),
    ]
    assert s.peer.unwrap()


def test_what_waits_is_sent_before_the_end(session, steps):
    s = session("client", Recorder())
    s.transport.write(MUCH)
    s.transport.close()
    steps(s.peer, lambda: s.peer.notified)
    assert s.peer.data == MUCH


def test_an_end_without_a_word_is_an_end(session, until):
    proto = Recorder()
    s = session("client", proto)
    s.peer.tls.write(b"last")
    s.peer.send()
    s.peer.sock.close()
    until(lambda: proto.is_lost)
    assert proto.events == [
        ("connection_made",),
        ("data_received", b"last"),
        ("eof_received",),
        ("connection_lost", None),
    ]


def test_returning_true_from_eof_received_is_in_vain(session, until, logs):
    class Stay(Recorder):
        def eof_received(self):
            super().eof_received()
            return True

    proto = Stay()
    s = session("client", proto)
    s.peer.unwrap()
    until(lambda: proto.is_lost)
    assert [r.getMessage() for r in logs.take()] == [
        "returning true from eof_received() has no effect when using ssl"
    ]


def test_abort(session, side, until):
    proto = Recorder()
    s = session(side, proto)
    s.transport.write(MUCH)
    s.transport.abort()
    assert s.transport.is_closing()
    until(lambda: proto.is_lost)
    assert proto.events[-1] == ("connection_lost", None)


def test_garbage_ends_the_connection(session, side, until, reports):
    proto = Recorder()
    s = session(side, proto)
    s.peer.sock.send(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
    until(lambda: proto.is_lost)
    exc = proto.events[-1][1]
    assert isinstance(exc, ssl.SSLError)
    assert exc.reason in ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")
    assert proto.data == b""


def test_an_alert_ends_the_connection(session, until):
    proto = Recorder()
    s = session("client", proto)
    s.peer.incoming.write(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
    with pytest.raises(ssl.SSLError):
        s.peer.tls.read()
    s.peer.send()
    until(lambda: proto.is_lost)
    exc = proto.events[-1][1]
    assert isinstance(exc, ssl.SSLError)
    assert "alert bad record mac" in str(exc).lower().replace("_", " ")


def test_a_peer_that_never_answers_the_goodbye(session, until):
    proto = Recorder()
    s = session("client", proto, ssl_shutdown_timeout=0.05)
    s.transport.close()
    until(lambda: proto.is_lost)
    exc = proto.events[-1][1]
    assert isinstance(exc, TimeoutError)
    assert str(exc) == "SSL shutdown timed out"


def test_writes_after_the_end_are_counted(session, until, logs):
    proto = Recorder()
    s = session("client", proto)
    s.transport.abort()
    until(lambda: proto.is_lost)
    for _ in range(6):
        s.transport.write(b"x")
    assert [r.getMessage() for r in logs.take()] == ["SSL connection is closed"] * 2


def test_the_loop_learns_what_data_received_raised(session, until, reports):
    proto = Recorder(data_received=lambda proto, data: 1 / 0)
    s = session("client", proto)
    s.peer.tls.write(b"x")
    s.peer.send()
    until(lambda: proto.is_lost)
    (context,) = reports.take()
    assert context["message"] == "Fatal error on SSL protocol"
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["exception"] is proto.lost
    assert context["protocol"].get_buffer  # the one between transport and protocol
    assert context["transport"].get_extra_info("peername")
    assert set(context) == {"message", "exception", "protocol", "transport"}
    del context
    proto.events.clear()


def test_the_loop_learns_what_connection_made_raised(begin, steps, way, reports):
    proto = Recorder(connection_made=lambda proto: 1 / 0)
    task, peer = begin("client", proto, client_context(way), server_context())
    steps(peer, task.done)
    with pytest.raises(ZeroDivisionError):
        task.result()
    (context,) = reports.take()
    assert context["message"] == "Fatal error: protocol.buffer_updated() call failed."
    assert isinstance(context["exception"], ZeroDivisionError)
    del context, task
    proto.events.clear()


@pytest.mark.parametrize("item", ["text", 1, None, [1]])
def test_writelines_refuses_what_is_not_bytes(session, item, reports, settle):
    s = session("client", Recorder())
    try:
        s.transport.writelines([item])
    except TypeError:
        return
    settle()
    (context,) = reports.take()  # asyncio finds out when it encrypts
    assert isinstance(context["exception"], TypeError)
    s.protocol.events.clear()


def test_an_unclosed_transport_is_told_of(loop, session, until):
    s = session("client", Recorder())
    proto = s.protocol
    s.transport.abort()
    until(lambda: proto.is_lost)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del s
        gc.collect()
    assert caught == []


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(
    "where", ["connection_made", "data_received", "buffer_updated", "eof_received", "pause_writing"]
)
def test_the_application_ends_it_in_a_callback(session, steps, reports, where, how):
    def end(proto, *args):
        getattr(proto.transport, how)()

    kind = Viewed if where == "buffer_updated" else Recorder
    proto = kind(**{where: end})
    s = session("server", proto)
    while where == "pause_writing" and not proto.count(where):
        s.transport.write(MUCH)
    s.peer.to_send = b"x" * 40_000
    s.peer.step()
    if where == "eof_received":
        s.peer.unwrap()

    def ended():
        if s.peer.notified:
            s.peer.unwrap()
        return proto.is_lost

    steps(s.peer, ended)
    assert proto.count("connection_lost") == 1
    assert proto.count(where) == 1


@pytest.mark.parametrize("cut", [1, 3, 5, 6, 20, 300])
def test_a_reset_in_the_middle_of_a_record(session, side, steps, until, cut):
    proto = Recorder()
    s = session(side, proto)
    s.peer.tls.write(b"x" * 1000)
    s.peer.sock.send(s.peer.outgoing.read()[:cut])
    until(lambda: True)
    s.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.peer.sock.close()
    s.transport.write(b"y" * 1000)
    until(lambda: proto.is_lost)
    assert proto.data == b""
    assert proto.lost is None or isinstance(proto.lost, ConnectionError)


@pytest.mark.parametrize("seed", range(8))
def test_bytes_that_are_changed_on_the_way_are_never_delivered(session, until, reports, seed):
    """Records are whole or the connection ends; whatever comes, nothing worse happens."""
    chance = random.Random(seed)
    proto = Recorder()
    s = session(chance.choice(["client", "server"]), proto)
    for _ in range(20):
        s.peer.tls.write(b"good " * chance.randrange(1, 2000))
    wire = bytearray(s.peer.outgoing.read())
    for _ in range(5):
        wire[chance.randrange(len(wire))] ^= 1 << chance.randrange(8)
    wire = bytes(wire)
    while wire and not proto.is_lost:
        n = chance.randrange(1, 30_000)
        try:
            s.peer.sock.send(wire[:n])
        except OSError:
            break
        wire = wire[n:]
        until(lambda: True)
    s.peer.sock.close()
    until(lambda: proto.is_lost)
    assert proto.data.replace(b"good ", b"") == b""


# ---- over a transport in Python ----


class Wire(asyncio.Transport):
    """A transport of the application's own, which hands over what it has when it is told to."""

    _start_tls_compatible = True

    def __init__(self, loop):
        super().__init__({"wire": "copper"})
        self.loop = loop
        self.sent = b""
        self.closed = False

    def set_protocol(self, protocol):
        self.protocol = protocol

    def deliver(self, data):
        while data:
            buffer = self.protocol.get_buffer(len(data))
            n = min(len(buffer), len(data))
            buffer[:n] = data[:n]
            self.protocol.buffer_updated(n)
            data = data[n:]

    def write(self, data):
        self.sent += data

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_closing(self):
        return self.closed

    def close(self):
        self._force_close(None)

    def _force_close(self, exc):
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, exc)


@pytest.fixture
def wired(loop, turn, way):
    """A Recorder over TLS over a Wire, the wire, and the other side's TLS."""
    proto, wire = Recorder(), Wire(loop)
    peer = Peer(None, server_context(), True)
    task = loop.create_task(
        loop.start_tls(wire, proto, client_context(way), server_hostname="localhost")
    )
    turn(3)
    while not (task.done() and peer.shaken):
        peer.incoming.write(wire.sent)
        wire.sent = b""
        try:
            peer.tls.do_handshake()
            peer.shaken = True
        except ssl.SSLWantReadError:
            pass
        wire.deliver(peer.outgoing.read())
        turn(2)
    proto.transport = task.result()
    yield proto, wire, peer
    proto.transport.abort()
    turn(3)


def test_over_a_transport_in_python(wired, turn):
    proto, wire, peer = wired
    assert proto.transport.get_extra_info("wire") == "copper"
    proto.transport.write(MUCH[:100_000])
    peer.incoming.write(wire.sent)
    got = b""
    while len(got) < 100_000:
        got += peer.tls.read(100_000)
    assert got == MUCH[:100_000]
    for i in range(0, 200_000, 10_000):
        peer.tls.write(MUCH[i : i + 10_000])
    wire.deliver(peer.outgoing.read())
    turn(3)
    assert proto.data == MUCH[:200_000]


def test_a_transport_in_python_pauses_us(wired, turn):
    proto, wire, peer = wired
    below = wire.protocol
    below.pause_writing()
    wire.sent = b""
    proto.transport.set_write_buffer_limits(high=1000)
    proto.transport.write(b"x" * 2000)
    assert wire.sent == b""
    assert proto.transport.get_write_buffer_size() >= 2000
    assert proto.names() == ["pause_writing"]
    below.resume_writing()
    assert proto.transport.get_write_buffer_size() == 0
    assert proto.names() == ["pause_writing", "resume_writing"]
    peer.incoming.write(wire.sent)
    assert peer.tls.read(10_000) == b"x" * 2000


@pytest.mark.ctask_only
def test_more_bytes_than_the_buffer_holds_are_refused(wired):
    _, wire, _ = wired
    buffer = wire.protocol.get_buffer(-1)
    with pytest.raises(ValueError, match="more than the buffer holds"):
        wire.protocol.buffer_updated(len(buffer) + 1)
    with pytest.raises(ValueError, match="more than the buffer holds"):
        wire.protocol.buffer_updated(-1)
    wire.protocol.buffer_updated(0)


# ---- flow control ----


def test_the_application_is_paused_and_resumed(session, side, steps):
    proto = Recorder()
    s = session(side, proto)
    s.transport.set_write_buffer_limits(high=100_000, low=10_000)
    sent = 0
    while proto.events[-1] != ("pause_writing",):
        s.transport.write(MUCH[:50_000])
        sent += 50_000
    assert s.transport.get_write_buffer_size() >= 100_000
    steps(s.peer, lambda: proto.events[-1] == ("resume_writing",))
    assert s.transport.get_write_buffer_size() <= 10_000
    steps(s.peer, lambda: len(s.peer.data) == sent)
    assert [e[0] for e in proto.events] == ["connection_made", "pause_writing", "resume_writing"]


def test_pause_reading(session, steps, settle, recorder):
    s = session("client", recorder)
    s.transport.pause_reading()
    assert not s.transport.is_reading()
    s.peer.to_send = b"hello"
    s.peer.step()
    settle()
    assert recorder.data == b""
    s.transport.resume_reading()
    assert s.transport.is_reading()
    assert recorder.data == b""  # not in the call
    steps(s.peer, lambda: recorder.data == b"hello")


def test_what_is_not_read_is_bounded(session, steps, turn, recorder):
    s = session("client", recorder)
    s.transport.pause_reading()
    s.peer.to_send = MUCH * 4
    for _ in range(300):
        s.peer.step()
        turn()
    assert 0 < s.transport.get_read_buffer_size() <= 1024 * 1024
    assert s.peer.to_send
    s.transport.resume_reading()
    steps(s.peer, lambda: len(recorder.data) == 4 * len(MUCH))
    assert recorder.data == MUCH * 4


def test_pausing_in_the_middle_loses_nothing(session, steps, loop):
    class Hesitant(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()
            loop.call_soon(self.transport.resume_reading)

    s = session("server", Hesitant())
    s.peer.to_send = MUCH
    steps(s.peer, lambda: len(s.protocol.data) == len(MUCH))
    assert s.protocol.data == MUCH


# ---- upgrades ----


@pytest.fixture
def upgrade(loop, run, steps, way, settle):
    """upgrade(side, protocol) -> Session: start_tls() on a connection."""
    made = []

    def upgrade(side, protocol):
        ours, other = make_pair("tcp")
        made.append((other, None))
        plain, _ = run(loop.create_connection(lambda: protocol, sock=ours))
        if side == "client":
            peer = Peer(other, server_context(), True)
            task = loop.create_task(
                loop.start_tls(plain, protocol, client_context(way), server_hostname="localhost")
            )
        else:
            peer = Peer(other, client_context(), False, "localhost")
            task = loop.create_task(
                loop.start_tls(plain, protocol, server_context(way), server_side=True)
            )
        steps(peer, lambda: task.done() and peer.shaken)
        made[-1] = (other, task.result())
        return Session(task.result(), protocol, peer)

    yield upgrade
    for other, transport in made:
        if transport is not None:
            transport.abort()
        other.close()
    settle()


def test_start_tls(upgrade, side, recorder, steps):
    s = upgrade(side, recorder)
    assert recorder.events == [("connection_made",)]
    assert s.transport is not recorder.transport
    assert s.transport.get_protocol() is recorder
    s.peer.to_send = b"hello"
    s.transport.write(b"answer")
    steps(s.peer, lambda: recorder.data == b"hello" and s.peer.data == b"answer")
    s.transport.close()
    steps(s.peer, lambda: s.peer.notified)
    s.peer.unwrap()
    steps(s.peer, lambda: recorder.is_lost)
    assert recorder.events[-1] == ("connection_lost", None)


def test_start_tls_over_tls(upgrade, loop, steps, way, settle):
    proto = Recorder()
    s = upgrade("client", proto)
    outer = s.peer
    inner = Peer(None, server_context(), True)
    task = loop.create_task(
        loop.start_tls(s.transport, proto, client_context(way), server_hostname="localhost")
    )

    def step():
        outer.step()
        inner.incoming.write(outer.data)
        outer.data = b""
        inner.receive = inner.send = lambda: None
        inner.step()
        outer.to_send += inner.outgoing.read()
        outer.step()

    steps(outer, lambda: (step(), task.done() and inner.shaken)[1])
    transport = task.result()
    inner.to_send = MUCH[:100_000]
    transport.write(MUCH[:200_000])
    steps(outer, lambda: (step(), len(inner.data) == 200_000 and len(proto.data) == 100_000)[1])
    assert inner.data == MUCH[:200_000]
    assert proto.data == MUCH[:100_000]
    assert transport.get_extra_info("peername") == outer.sock.getsockname()
    transport.abort()
    steps(outer, lambda: proto.is_lost)


def test_start_tls_refuses_other_transports_and_contexts(loop, run):
    async def main():
        with pytest.raises(TypeError, match="sslcontext is expected to be an instance of"):
            await loop.start_tls(asyncio.Transport(), Recorder(), None)
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await loop.start_tls(asyncio.Transport(), Recorder(), client_context())

    run(main())


@pytest.mark.ctask_only  # asyncio before 3.14 takes the plain text for decrypted
def test_what_was_sent_before_the_upgrade_is_not_taken_for_decrypted(loop, run, until, way, settle):
    """An attacker cannot put a command before the first that comes encrypted."""

    async def main():
        ours, peer = make_pair("tcp")
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        peer.send(b"STARTTLS\r\nDELETE everything\r\n")
        assert await reader.readline() == b"STARTTLS\r\n"
        with pytest.raises(ssl.SSLError):
            await loop.start_tls(transport, protocol, server_context(way), server_side=True)
        with pytest.raises(ssl.SSLError):
            await reader.read()
        peer.close()

    run(main())
    settle()


# ---- the rest ----


@pytest.mark.ctask_only  # asyncio calls connection_lost() in the context of who aborted
def test_each_callback_runs_in_the_context_of_the_connection(loop, begin, steps, way):
    var = contextvars.ContextVar("var", default="outside")

    class Watch(Recorder):
        def connection_made(self, transport):
            seen.append(var.get())
            super().connection_made(transport)

        def data_received(self, data):
            seen.append(var.get())
            super().data_received(data)

        def connection_lost(self, exc):
            seen.append(var.get())
            super().connection_lost(exc)

    seen = []
    var.set("inside")
    proto = Watch()
    task, peer = begin("client", proto, client_context(way), server_context())
    var.set("outside")
    steps(peer, lambda: task.done() and peer.shaken)
    peer.to_send = b"x"
    steps(peer, lambda: proto.data)
    task.result()[0].abort()
    steps(peer, lambda: proto.is_lost)
    assert seen == ["inside"] * 3


def test_sendfile(session, loop, run, steps, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(MUCH)
    s = session("client", Recorder())
    with path.open("rb") as file:
        task = loop.create_task(loop.sendfile(s.transport, file, 10))
        steps(s.peer, task.done)
        assert task.result() == len(MUCH) - 10
    steps(s.peer, lambda: len(s.peer.data) == len(MUCH) - 10)
    assert s.peer.data == MUCH[10:]
    run(loop.shutdown_default_executor())  # which read the file


def test_debug_mode_tells_of_the_handshake(loop, session, steps, caplog):
    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")
    proto = Recorder()
    s = session("client", proto)
    s.transport.abort()
    steps(s.peer, lambda: proto.is_lost)
    loop.set_debug(False)
    messages = [record.getMessage() for record in caplog.records]
    assert any("starts SSL handshake" in message for message in messages)
    assert any("SSL handshake took" in message for message in messages)


def test_a_closed_connection_is_let_go_without_the_collector(session, steps):
    gc.disable()
    try:
        proto = Recorder()
        s = session("client", proto)
        transport = weakref.ref(s.transport)
        context = weakref.ref(s.transport.get_extra_info("sslcontext"))
        s.transport.close()
        steps(s.peer, lambda: s.peer.notified)
        s.peer.unwrap()
        steps(s.peer, lambda: proto.is_lost)
        assert transport() is s.transport
        session.made.clear()
        s.transport = proto.transport = None
        assert transport() is None
        assert context() is None
    finally:
        gc.enable()


def test_streams_over_tls(loop, run, way):
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context(way))
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(
            *address, ssl=client_context(way), server_hostname="localhost"
        )
        for n in (1, 1000, 60_000):
            writer.write(b"x" * n + b"\n")
            await writer.drain()
            assert await reader.readline() == b"X" * n + b"\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.ctask_only
def test_openssl_is_called_directly_where_that_is_known_to_work(session, way):
    s = session("client", Recorder())
    assert s.transport._ssl_protocol._direct is (way == "direct")


@pytest.mark.ctask_only
def test_openssl_is_called_directly_whatever_is_imported(session, way, monkeypatch):
    session("client", Recorder())
    monkeypatch.setitem(sys.modules, "ssl", None)
    s = session("client", Recorder())
    assert s.transport._ssl_protocol._direct is (way == "direct")


@pytest.mark.ctask_only
def test_openssl_is_called_directly_for_classes_with_a_handshake_of_their_own(session):
    context = client_context()
    context.sslobject_class = VerifyingObject
    s = session("client", Recorder(), context)
    assert VerifyingObject.handshakes > 0
    assert s.transport._ssl_protocol._direct


def test_a_socket_of_another_kind_of_context_is_refused(loop, run):
    ours, peer = make_pair("tcp")
    with pytest.raises((TypeError, AttributeError)):
        run(loop.create_connection(Recorder, sock=ours, ssl="context", server_hostname="x"))
    ours.close()
    peer.close()


def test_a_patched_protocol_of_asyncio_is_called(session, side, steps, monkeypatch):
    seen = []
    made = asyncio.sslproto.SSLProtocol.connection_made

    def connection_made(self, transport):
        seen.append(transport)
        made(self, transport)

    monkeypatch.setattr(asyncio.sslproto.SSLProtocol, "connection_made", connection_made)
    proto = Recorder()
    s = session(side, proto)
    s.transport.write(b"data")
    steps(s.peer, lambda: s.peer.data == b"data")
    assert len(seen) == 1


@pytest.mark.ctask_only  # a debug build of Python would end the process
def test_the_first_connection_without_memory_raises(script):
    pytest.importorskip("_testcapi")
    out = script("""
    import _testcapi
    import ssl
    loop = impl.new_event_loop()
    context = ssl.create_default_context()
    told = []
    from ctask import _ctask
    for n in range(60):
        _testcapi.set_nomemory(n, n + 1)
        try:
            _ctask.SSLProtocol(loop, asyncio.Protocol(), context, None)
            break
        except Exception:  # MemoryError, or what Python's ssl makes of it
            told.append(n)
        finally:
            _testcapi.remove_mem_hooks()
    loop.close()
    print(told == list(range(len(told))))
    """)
    assert out.out == "True\n"
