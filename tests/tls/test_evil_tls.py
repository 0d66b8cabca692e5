"""Whatever Python code does that TLS calls, the interpreter stands."""

import sys

import pytest

buffers_in_python = pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__() before")

TLS = """
import ssl, weakref

class Session:
    '''In the place of an ssl.SSLObject: no TLS at all.'''
    to_read = b""
    def do_handshake(self): pass
    def getpeercert(self): pass
    def cipher(self): pass
    def compression(self): pass
    def pending(self): return 0
    def unwrap(self): pass
    def read(self, size, *buffer):
        if not self.to_read:
            raise ssl.SSLWantReadError
        data, self.to_read = self.to_read[:size], self.to_read[size:]
        return data
    def write(self, data):
        self.outgoing.write(data)
        return len(data)

class Context(ssl.SSLContext):
    def wrap_bio(self, incoming, outgoing, **options):
        session = self.make()
        session.outgoing = outgoing
        return session

def context_of(make):
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.make = make
    return context

class Wire(asyncio.Transport):
    _start_tls_compatible = True
    def __init__(self):
        super().__init__()
        self.sent = []
    def set_protocol(self, protocol): self.protocol = protocol
    def write(self, data): self.sent.append(bytes(data))
    def pause_reading(self): pass
    def resume_reading(self): pass
    def is_closing(self): return False
    def close(self): pass
    def _force_close(self, exc): pass

def deliver(protocol, data):
    while data:
        buffer = protocol.get_buffer(len(data))
        n = min(len(buffer), len(data))
        buffer[:n] = data[:n]
        protocol.buffer_updated(n)
        data = data[n:]

def tls(make=Session, app=None, wire=None):
    '''A connection: its transport and its SSLProtocol, which alone has the wire.'''
    transport = loop.run_until_complete(loop.start_tls(
        wire or Wire(), app or Protocol(), context_of(make), server_hostname="x"))
    return transport, transport._ssl_protocol

def lost():
    '''The transport of a connection that is lost, which alone has the SSLProtocol.'''
    transport, protocol = tls()
    protocol.connection_lost(None)
    turns()
    gc.collect()
    return transport, weakref.ref(protocol)

def real():
    '''The same as tls() of a real connection.'''
    from helpers import tls_peer
    wire, peer = Wire(), tls_peer.Peer(None, tls_peer.server_context(), True)
    task = loop.create_task(loop.start_tls(
        wire, Protocol(), tls_peer.client_context(), server_hostname="localhost"))
    turns()
    while not (task.done() and peer.shaken):
        peer.incoming.write(b"".join(wire.sent))
        wire.sent.clear()
        try:
            peer.tls.do_handshake()
            peer.shaken = True
        except ssl.SSLWantReadError:
            pass
        deliver(wire.protocol, peer.outgoing.read())
        turns()
    transport = task.result()
    return transport, transport._ssl_protocol
"""


# ---- what is used when it has gone ----


@pytest.mark.parametrize(
    "call",
    [
        "transport.set_write_buffer_limits(high=Ends())",
        "transport.set_read_buffer_limits(low=Ends())",
        "transport.set_protocol(Ends())",
        pytest.param("transport._test__append_write_backlog(Ends())", marks=buffers_in_python),
    ],
)
def test_the_argument_lets_go_of_the_connection(stands, call):
    stands(f"""{TLS}
class Ends:
    def __index__(self):
        transport.close()
        return 3
    @property
    def __class__(self):
        transport.close()
        return Ends
    def __buffer__(self, flags):
        transport.close()
        return memoryview(b"abc")

transport, gone = lost()
attempt(lambda: {call})
assert STOCK or gone() is None
""")


BIO = """
class Bio:
    '''In the place of ssl.MemoryBIO, which no class can have as its base.'''
    def __init__(self):
        self.bio = MemoryBIO()
        self.write, self.write_eof = self.bio.write, self.bio.write_eof
    @property
    def eof(self):
        return self.bio.eof
    @property
    def pending(self):
        return self.bio.pending
    def read(self, *size):
        return self.bio.read(*size)

MemoryBIO, ssl.MemoryBIO = ssl.MemoryBIO, Bio
"""

HOOKED = f"""{BIO}
class Hooked(Bio):
    hook = None
    def asked(self):
        hook, Hooked.hook = Hooked.hook, None
        if hook is not None:
            hook()
    @property
    def pending(self):
        self.asked()
        return super().pending
    def read(self, *size):
        data = super().read(*size)
        if data:
            self.asked()
        return data

ssl.MemoryBIO = Hooked
"""


@pytest.mark.parametrize("size", ["write", "read"])
def test_the_connection_goes_while_it_counts(stands, size):
    stands(f"""{TLS}{HOOKED}
transport, gone = lost()
Hooked.hook = transport.close
attempt(transport.get_{size}_buffer_size)
assert STOCK or gone() is None
""")


def test_the_application_goes_before_it_gives_its_buffer(stands):
    stands(f"""{TLS}{HOOKED}
class Buffered(asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        return bytearray(100)
    def buffer_updated(self, n):
        pass

transport, protocol = tls(app=Buffered())
gc.collect()
protocol._sslobj.to_read = b"abc"
Hooked.hook = lambda: transport.set_protocol(Protocol())
deliver(protocol, b"x")
""")


def test_the_transport_below_goes_while_what_is_for_it_is_read(stands):
    stands(f"""{TLS}{HOOKED}
transport, protocol = tls()
gc.collect()
Hooked.hook = lambda: protocol.connection_lost(None)
transport.write(b"abc")
""")


def test_the_transport_below_goes_while_it_is_asked_for_its_methods(stands):
    stands(f"""{TLS}
class Evil(Wire):
    def __getattribute__(self, name):
        if name == "close":
            protocol.connection_lost(None)
            raise AttributeError(name)
        return object.__getattribute__(self, name)
    def __getattr__(self, name):
        return lambda: None

transport, protocol = tls(wire=Evil())
gc.collect()
transport.close()
turns()
""")


def test_the_transport_below_writes_to_its_successor_when_it_goes(stands):
    stands(f"""{TLS}
class Late:
    def __del__(self):
        attempt(transport.write, b"abc")

transport, protocol = real()
app = Protocol()
below, theirs = stream(app)
attempt(protocol.connection_made, below)
below.abort()
turns()
below.late = Late()
wire = Wire()
del app, below
theirs.close()
gc.collect()
attempt(protocol.connection_made, wire)
assert wire.sent
""")


# ---- what is not whole ----


def test_a_protocol_is_found_before_it_is_made(stands):
    stands(f"""{TLS}
def make():
    if not seen:
        seen.append(True)
        for obj in gc.get_objects():
            if type(obj).__name__ == "SSLProtocol":
                for method in ("connection_made", "_feed", "eof_received", "connection_lost"):
                    for args in ((), (Wire(),), (b"abc",), (None,)):
                        attempt(lambda: getattr(obj, method)(*args))
    return Session()

seen = []
attempt(tls, make)
assert seen
""")


@pytest.mark.parametrize("low", ["-2**62", "-2**63", "-2**64", "2**63", "2**62"])
def test_limits_that_overflow(stands, low):
    stands(f"""{TLS}
transport, protocol = tls()
for name in ("set_write_buffer_limits", "set_read_buffer_limits"):
    attempt(getattr(transport, name), low={low})
    attempt(getattr(transport, name), high={low})
""")


@pytest.mark.parametrize("answer", ["-1", "-2**63", "2**63 - 1", "2**63", "None"])
def test_sizes_that_cannot_be(stands, answer):
    stands(f"""{TLS}{BIO}
class Lying(Bio):
    pending = 0

ssl.MemoryBIO = Lying
transport, protocol = tls()
Lying.pending = {answer}
for call in (
    transport.get_write_buffer_size,
    transport.get_read_buffer_size,
    lambda: transport.write(b"abc"),
    lambda: deliver(protocol, b"abc"),
):
    try:
        call()
    except (OverflowError, TypeError):  # and no SystemError
        pass
""")


@pytest.mark.ctask_only  # asyncio looks into the type
def test_a_class_in_the_place_of_what_has_the_connection_of_openssl(stands):
    stands(f"""{TLS}
import _ssl

class Fake:
    # In the places of the fields of _SSLSocket.
    __slots__ = ("a", "b", "context", "d", "owner", "p", "q")
    def do_handshake(self): pass
    def getpeercert(self, *args): pass
    def cipher(self): pass
    def compression(self): pass
    def pending(self): return 0
    def read(self, *args): raise ssl.SSLWantReadError
    def write(self, data): return len(data)

_ssl._SSLSocket = Fake

def make():
    session = ssl.SSLObject.__new__(ssl.SSLObject)
    session._sslobj = fake = Fake()
    fake.b = b"A" * 100_000
    fake.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    fake.owner = weakref.ref(session)
    return session

transport, protocol = tls(make)
transport.write(b"abc")
assert not protocol._direct
""")


@pytest.mark.ctask_only
def test_early_bytes_that_come_while_openssl_is_at_work(stands):
    stands(f"""{TLS}
class Fed(Session):
    def do_handshake(self):
        try:
            wire.protocol._feed(b"abc")
        except RuntimeError:
            refused.append(True)

refused, wire = [], Wire()
tls(Fed, wire=wire)
assert refused
""")


# ---- made again ----


@pytest.mark.ctask_only  # asyncio calls it in the context of who is calling
def test_another_context_while_the_application_is_called(stands):
    stands(f"""{TLS}
import contextvars
var = contextvars.ContextVar("var", default="outside")

class Moves(Protocol):
    def data_received(self, data):
        var.set("inside")
        attempt(protocol.connection_made, below)

below, theirs = stream(Protocol())
transport, protocol = tls(app=Moves())
protocol._sslobj.to_read = b"abc"
deliver(protocol, b"x")
assert var.get() == "outside"
below.abort()
turns()
""")


@pytest.mark.ctask_only
def test_a_protocol_that_is_used_again_has_one_timer(stands):
    stands(f"""{TLS}
from ctask._ctask import SSLProtocol

class Timer:
    cancelled = False
    def cancel(self):
        self.cancelled = True

class Loop:
    def get_debug(self): return False
    def call_soon(self, *args, **kwargs): pass
    def call_exception_handler(self, context): pass
    def call_later(self, delay, callback):
        timer = Timer()
        timers.append(weakref.ref(timer))
        return timer

class Waiting(Session):
    def do_handshake(self):
        raise ssl.SSLWantReadError

timers = []
protocol = SSLProtocol(Loop(), Protocol(), context_of(Waiting), None)
protocol.connection_made(Wire())
protocol._app_transport.abort()
protocol.connection_made(Wire())
assert [timer() is None for timer in timers] == [True, False]
protocol.connection_lost(None)
assert timers[1]() is None
""")


# ---- many ----


@pytest.mark.ctask_only
@pytest.mark.parametrize("kind", ["protocol", "transport"])
def test_a_chain_of(stands, kind):
    stands(f"""{TLS}
from ctask._ctask import SSLProtocol
gc.disable()
context = context_of(Session)
last = [Protocol()] if {kind!r} == "protocol" else [loop]
for _ in range(40_000):
    if {kind!r} == "protocol":
        protocol = SSLProtocol(loop, last.pop(), context, None)
    else:
        protocol = SSLProtocol(last.pop(), Protocol(), context, None)
    transport = protocol._app_transport
    transport.close()
    transport.close()  # lets go of the protocol
    last.append(protocol if {kind!r} == "protocol" else transport)
del protocol, transport
threading.stack_size(3 * 1024 * 1024)  # so that so few are enough
thread = threading.Thread(target=last.clear)
thread.start()
thread.join()
""")


@pytest.mark.ctask_only
def test_what_comes_for_the_uppermost_of_many(stands):
    stands(f"""{TLS}
from ctask._ctask import SSLProtocol
gc.disable()
context = context_of(Session)
chain = [Protocol()]
asan = "libasan" in open("/proc/self/maps").read()  # its frames are larger
for _ in range(100 if asan else 60_000):
    protocol = SSLProtocol(loop, chain[-1], context, None, call_connection_made=False)
    protocol.connection_made(Wire())
    protocol._sslobj.to_read = b"x"
    chain.append(protocol)
attempt(deliver, protocol, b"x")
for protocol in chain[1:]:
    protocol.connection_lost(None)
""")


def test_the_transport_below_writes_more_and_more(stands):
    stands(f"""{TLS}
class Loud(Wire):
    def write(self, data):
        transport.writelines([b"a", b"b"])

transport, protocol = tls(wire=Loud())
attempt(transport.writelines, [b"a", b"b"])
""")
