"""What the tests of TLS share: a peer that is driven by hand, and connections to it.

The peer is a ssl.SSLObject over the other socket of a pair, so each test decides what comes when.
`way` runs each test twice: with ssl's own SSLObject, for which ctask calls OpenSSL directly, and
with a derived class, for which it calls the class's methods.  The fixtures are conftest.py's.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from helpers.streams import BufferedRecorder, make_pair

CERTS = Path(__file__).parents[1] / "certs"


class PlainObject(ssl.SSLObject):
    """No different; but who calls OpenSSL behind its back does not call it."""

    def read(self, *args):
        return super().read(*args)


@pytest.fixture(params=["direct", "python"])
def way(request):
    return request.param


def client_context(way="direct", cert=None):
    context = ssl.create_default_context(cafile=CERTS / "ca.pem")
    if cert:
        context.load_cert_chain(CERTS / cert)
    if way == "python":
        context.sslobject_class = PlainObject
    return context


def server_context(way="direct", ask=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "server.pem")
    if ask:
        context.load_verify_locations(CERTS / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    if way == "python":
        context.sslobject_class = PlainObject
    return context


def contexts_for(side, way="direct"):
    """Ours and the peer's."""
    ours, theirs = client_context, server_context
    return (ours(way), theirs()) if side == "client" else (theirs(way), ours())


class Peer:
    """The other end. step() does what can be done without waiting."""

    def __init__(self, sock, context, server_side, hostname=None):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=hostname
        )
        self.shaken = self.notified = self.eof = self.stopped = False
        self.data = b""
        self.to_send = b""
        self.left = b""

    def receive(self):
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.eof = True
                return
            self.incoming.write(data)

    def send(self):
        self.left += self.outgoing.read()
        while self.left:
            try:
                self.left = self.left[self.sock.send(self.left[:65536]) :]
            except BlockingIOError:
                return

    def step(self):
        if self.stopped:
            return
        self.receive()
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            if self.to_send and not self.left:
                self.to_send = self.to_send[self.tls.write(self.to_send[:65536]) :]
            while not self.notified:
                data = self.tls.read(65536)
                self.data += data
                self.notified = not data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.notified = True
        self.send()

    def unwrap(self):
        """Say that nothing more comes; True once the other side has said so too."""
        self.receive()
        try:
            self.tls.unwrap()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self.send()


class Session:
    def __init__(self, transport, protocol, peer):
        self.transport = transport
        self.protocol = protocol
        self.peer = peer


@pytest.fixture(params=["client", "server"])
def side(request):
    return request.param


@pytest.fixture
def begin(loop, turn, settle):
    """begin(side, protocol, ours, theirs, **options) -> (task of the handshake, peer)."""
    made = []

    def begin(side, protocol, ours, theirs, **options):
        mine, other = make_pair("tcp")
        made.append((mine, other))
        if side == "client":
            options.setdefault("server_hostname", "localhost")
            starting = loop.create_connection(lambda: protocol, sock=mine, ssl=ours, **options)
            peer = Peer(other, theirs, True)
        else:
            starting = loop.connect_accepted_socket(lambda: protocol, mine, ssl=ours, **options)
            peer = Peer(other, theirs, False, "localhost")
        task = loop.create_task(starting)
        turn(3)
        return task, peer

    yield begin
    for mine, other in made:
        other.close()
    settle()
    for mine, _ in made:
        mine.close()


@pytest.fixture
def steps(until):
    """steps(peer, condition): run the loop and the peer until the condition holds."""
    return lambda peer, condition: until(lambda: (peer.step(), condition())[1])


@pytest.fixture
def shake(until):
    """shake(peer): the peer's last message waits for what it sends next."""

    def shake(peer):
        while not peer.shaken:
            try:
                peer.receive()
                peer.tls.do_handshake()
                peer.shaken = True
            except ssl.SSLWantReadError:
                peer.send()
                until(lambda: peer.receive() or peer.incoming.pending)

    return shake


@pytest.fixture
def session(begin, steps, way, loop, settle):
    """session(side, protocol, ...) -> a Session after the handshake; aborted at the end."""
    made = []

    def session(side, protocol, ours=None, theirs=None, **options):
        contexts = contexts_for(side, way)
        task, peer = begin(side, protocol, ours or contexts[0], theirs or contexts[1], **options)
        steps(peer, lambda: task.done() and peer.shaken)
        transport, _ = task.result()
        made.append(transport)
        peer.step()
        return Session(transport, protocol, peer)

    session.made = made
    yield session
    for transport in made:
        transport.abort()
    settle()


class Viewed(BufferedRecorder):
    """asyncio puts a second record into a copy, if the buffer is a bytearray."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))
