"""Whatever Python code does that a transport or a stream calls, the interpreter stands."""

import sys

import pytest

buffers_in_python = pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__() before")


@pytest.mark.parametrize("low", ["-2**62", "-2**63", "-2**64", "2**63", "2**62"])
def test_limits_that_overflow(stands, low):
    stands(f"""
transport, theirs = stream(Protocol())
attempt(transport.set_write_buffer_limits, low={low})
attempt(transport.set_write_buffer_limits, high={low})
transport.abort()
turns()
""")


def test_a_protocol_sets_another_while_it_is_asked_what_it_is(stands):
    stands("""
class Plain:
    asked = False
    @property
    def __class__(self):
        if not Plain.asked:
            Plain.asked = True
            reader = asyncio.StreamReader(loop=loop)
            transport.set_protocol(asyncio.StreamReaderProtocol(reader, loop=loop))
        return Plain
    def data_received(self, data):
        print(data)
    def eof_received(self):
        pass
    def connection_lost(self, exc):
        pass

transport, theirs = stream(Protocol())
transport.set_protocol(Plain())
theirs.send(b"abc")
turns()
transport.abort()
turns()
""")


def test_connection_made_ends_the_connection_and_so_does_its_report(stands):
    stands("""
class Ends(Protocol):
    failed = False
    def connection_made(self, transport):
        self.transport = transport
        self.failed = True
        raise ValueError
    def __getattribute__(self, name):
        if name == "connection_made" and object.__getattribute__(self, "failed"):
            attempt(self.transport._call_connection_lost, None)
        return object.__getattribute__(self, name)

stream(Ends())
turns()
""")


def test_the_log_of_an_eof_ends_the_connection(stands):
    stands("""
class Handler(logging.Handler):
    def emit(self, record):
        if "EOF" in record.msg:
            attempt(transport._call_connection_lost, None)

transport, theirs = stream(Protocol())
loop.set_debug(True)
logging.disable(logging.NOTSET)
logger = logging.getLogger("asyncio")
logger.propagate = False
logger.setLevel(logging.DEBUG)
logger.addHandler(Handler())
theirs.close()
turns()
""")


@buffers_in_python
def test_what_is_written_ends_the_connection(stands):
    stands("""
class Bytes(bytes):
    def __buffer__(self, flags):
        attempt(transport._call_connection_lost, None)
        return memoryview(b"abc")

transport, theirs = stream(Protocol())
attempt(transport.write, Bytes(b"abc"))
turns()
""")


@pytest.mark.parametrize("what", ["asked", "made"])
def test_the_dictionary_of_extra_information_goes_while_it_is(stands, what):
    stands(f"""
what = {what!r}
extra = asyncio.BaseTransport._extra if hasattr(asyncio.BaseTransport, "_extra") else None

def drop():
    if extra is not None:
        attempt(extra.__delete__, transport)
    gc.collect()

class Name:
    def __hash__(self):
        return hash("known")
    def __eq__(self, other):
        drop()
        return False

before = socket.socket.__init__
def init(self, *args, **kwargs):
    before(self, *args, **kwargs)
    drop()

transport, client = accepted()
if what == "made":
    socket.socket.__init__ = init
    attempt(transport.get_extra_info, "socket")
    drop()
    attempt(getattr, transport, "_extra")
    socket.socket.__init__ = before
else:
    attempt(dict.__setitem__, getattr(transport, "_extra", {{}}), "known", 1)
    for _ in range(3):
        attempt(transport.get_extra_info, Name())
transport.abort()
client.abort()
turns()
""")


def test_a_socket_class_that_makes_something_else(stands):
    stands("""
transport, client = accepted()
socket.socket.__new__ = lambda cls, *args, **kwargs: object()
attempt(transport.get_extra_info, "socket")
del socket.socket.__new__
attempt(transport.write, b"abc")
transport.abort()
client.abort()
turns()
""")


def test_a_hook_forgets_what_a_datagram_transport_has_queued(stands):
    stands("""
import os
mine, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
theirs.bind("evil")
mine.setblocking(False)
made = loop.create_task(loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=mine))
turns()
transport, _ = made.result()
ends = []

def hook(event, args):
    if event == "socket.sendto" and ends:
        transport.abort()
        raise ValueError

sys.addaudithook(hook)
to = theirs.getsockname()
for _ in range(1000):
    transport.sendto(b"x" * 1000, to)
    if transport.get_write_buffer_size():
        break
transport.sendto(b"x", to)
ends.append(1)
theirs.recv(5000)
turns()
theirs.close()
""")


def test_what_waits_to_be_sent_ends_the_connection_as_it_goes(stands):
    stands("""
class Bytes(bytes):
    def __del__(self):
        attempt(transport._call_connection_lost, None)

transport, theirs = stream(Protocol())
transport.write(b"x" * 1_000_000)
transport.write(Bytes(b"abc"))
transport.abort()
turns()
""")


def test_a_protocol_goes_while_it_hears_that_the_connection_is_lost(stands):
    stands("""
class Reader:
    def feed_eof(self):
        transport.set_protocol(Protocol())
        gc.collect()

mine, theirs = socket.socketpair()
mine.setblocking(False)
protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
transport = loop._make_socket_transport(mine, protocol)
turns()
protocol._stream_reader_wr = Reader
del protocol
transport.abort()
turns()
""")


def test_a_pipe_hears_of_its_end_while_its_protocol_goes(stands):
    stands("""
import os
class Goes(asyncio.Protocol):
    def __del__(self):
        attempt(loop._run_once)

read, write = os.pipe()
transport = loop._make_read_pipe_transport(os.fdopen(read, "rb", 0), Goes())
turns()
os.close(write)
loop._poll(1)
loop.call_soon(transport._call_connection_lost, None)
turns()
""")


def test_a_connection_is_lost_while_its_socket_object_is_made(stands):
    stands("""
import os
init, (other, _) = socket.socket.__init__, socket.socketpair()

def loses(self, family, kind, proto, number):
    socket.socket.__init__ = init
    transport._call_connection_lost(None)
    os.dup2(other.fileno(), number)
    init(self, family, kind, proto, number)
    numbers.append(number)

numbers = []
transport, client = accepted()
socket.socket.__init__ = loses
attempt(transport.get_extra_info, "socket")
gc.collect()
os.fstat(*numbers)
client.abort()
turns()
""")


def test_a_socket_object_is_made_while_it_is_made(stands):
    stands("""
import os
init = socket.socket.__init__

def makes(self, family, kind, proto, number):
    socket.socket.__init__ = init
    made.append(transport.get_extra_info("socket"))
    init(self, family, kind, proto, number)

made = []
transport, client = accepted()
socket.socket.__init__ = makes
made.append(transport.get_extra_info("socket"))
gc.collect()
assert made[0].fileno() == made[1].fileno()
os.fstat(made[0].fileno())
transport.abort()
client.abort()
turns()
""")


def test_a_server_ends_a_connection_that_is_attached_to_it(stands):
    stands("""
class Server:
    def _attach(self, transport=None):
        if transport is not None:
            attempt(transport._call_connection_lost, None)
    def _detach(self, transport=None):
        pass

mine, theirs = socket.socketpair()
mine.setblocking(False)
attempt(loop._make_socket_transport, mine, Protocol(), server=Server())
turns()
""")


@pytest.mark.parametrize("kind", ["socket", "datagram"])
@pytest.mark.parametrize("extra", ["5", "[1]", "'ab'"])
def test_extra_information_that_is_no_dictionary(stands, kind, extra):
    stands(f"""
kind = {kind!r}
type = socket.SOCK_STREAM if kind == "socket" else socket.SOCK_DGRAM
mine, theirs = socket.socketpair(type=type)
mine.setblocking(False)
try:
    getattr(loop, f"_make_{{kind}}_transport")(mine, Protocol(), extra={extra})
except TypeError:
    pass
""")


@pytest.mark.parametrize("what", ["goes", "is a number"])
def test_the_dictionary_of_extra_information_goes_while_it_takes_an_address(stands, what):
    stands(f"""
goes = {what!r} == "goes"
slot = getattr(asyncio.BaseTransport, "_extra", None)
failed = []
sys.unraisablehook = lambda told: failed.append(told.exc_type)

class Name:
    armed = False
    def __hash__(self):
        return hash("sockname")
    def __eq__(self, other):
        if self.armed and slot is not None:
            attempt(slot.__delete__, transport)
            gc.collect()
        return False

path = "./" + "x" * 60
listening = socket.socket(socket.AF_UNIX)
listening.bind(path)
listening.listen()
mine = socket.socket(socket.AF_UNIX)
mine.bind(path + "y")
mine.connect(path)
mine.setblocking(False)
transport = loop._make_socket_transport(mine, Protocol(), extra={{Name(): 1}})
turns()
if goes:
    Name.armed = True
elif slot is not None:
    slot.__set__(transport, 5)
transport.abort()
turns()
assert SystemError not in failed
""")


@pytest.mark.ctask_only  # asyncio's own need more stack
@pytest.mark.parametrize("kind", ["stream", "pipe", "datagram"])
def test_a_chain_of_transports(stands, kind):
    stands(f"""
import os
kind = {kind!r}
def make():
    if kind == "pipe":
        read, write = os.pipe()
        os.close(write)
        return loop._make_read_pipe_transport(os.fdopen(read, "rb", 0), asyncio.Protocol())
    datagram = kind == "datagram"
    type = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    mine, theirs = socket.socketpair(type=type)
    theirs.close()
    mine.setblocking(False)
    if datagram:
        return loop._make_datagram(mine, asyncio.DatagramProtocol())
    return loop._make_stream(mine, asyncio.Protocol())

gc.disable()
last = []
for _ in range(200):
    made = [make() for _ in range(200)]
    turns(1)
    for transport in made:
        transport.close() if kind == "pipe" else transport.abort()
    turns(1)
    for transport in made:
        transport.set_protocol(last.pop() if last else None)
        last.append(transport)
    del made, transport
threading.stack_size(3 * 1024 * 1024)  # so that so few are enough
thread = threading.Thread(target=last.clear)
thread.start()
thread.join()
""")


def test_reading_all_in_many_small_blocks(stands):
    stands("""
async def main():
    reader = asyncio.StreamReader(limit=1, loop=loop)
    reader.feed_data(b"x" * 300_000)
    reader.feed_eof()
    print(len(await reader.read()))

loop.run_until_complete(main())
""")


def test_a_limit_below_all_sizes(stands):
    stands("""
async def main():
    reader = asyncio.StreamReader(loop=loop)
    reader.set_transport(asyncio.Transport())
    for limit in (-2**63, -2**62, -1, 0, 2**63, 2**63 - 1):
        reader._limit = limit
        attempt(reader.feed_data, b"a line\\n")
        for method in (reader.readline, reader.read, lambda: reader.read(2)):
            try:
                await asyncio.wait_for(method(), 0)
            except Exception:
                pass

loop.run_until_complete(main())
""")


def test_a_buffer_that_is_replaced_while_it_is_read(stands):
    stands("""
class Buffer(bytearray):
    inner = False
    def __delitem__(self, place):
        super().__delitem__(place)
        if not self.inner:
            Buffer.inner = True
            reader._buffer = bytearray(b"ab")
            try:
                reader.readexactly(2).send(None)
            except StopIteration:
                pass

async def main():
    global reader
    reader = asyncio.StreamReader(loop=loop)
    reader._buffer = Buffer(b"abc")
    print(await reader.readexactly(3))
    attempt(reader.feed_data, b"abc")
    reader._buffer

loop.run_until_complete(main())
""")


@pytest.mark.parametrize("name", ["_closed", "_drain_waiters", "_complete_fut"])
def test_a_lazy_attribute_that_is_made_twice(stands, name):
    stands(f"""
name = {name!r}
inner = []
subject = None

class Future(asyncio.Future):
    def __del__(self):
        attempt(delattr, subject, name)

class Loop(type(loop)):
    def create_future(self):
        if subject is not None and not inner:
            inner.append(1)
            attempt(getattr, subject, name)
        return Future(loop=self)

other = Loop()
reader = asyncio.StreamReader(loop=other)
protocol = subject = asyncio.StreamReaderProtocol(reader, loop=other)
if name == "_complete_fut":
    subject = asyncio.StreamWriter(asyncio.Transport(), protocol, reader, other)
attempt(getattr, subject, name)
attempt(getattr, subject, name)
other.close()
""")


def test_a_descriptor_let_go_of_closes_the_loop(stands):
    stands("""
class Closes:
    def __del__(self):
        attempt(loop.close)
    def __call__(self):
        pass

mine, theirs = socket.socketpair()
mine.setblocking(False)
if hasattr(loop, "_make_stream"):
    transport = loop._make_stream(mine, asyncio.Protocol())
    loop._add_writer(mine.fileno(), lambda: None)
    loop._add_reader(mine.fileno(), Closes())
    attempt(transport._read_ready)
mine.close()
theirs.close()
""")


@pytest.mark.parametrize(
    "kind", ["stream", "tls", "datagram", "pipe", "server", "reader", "lock", "queue", "task"]
)
def test_what_the_collector_has_cleared_is_used(stands, kind):
    stands(f"""
import os, ssl
kind = {kind!r}

class Late:
    "The collector does not know it, so its end comes while the rest is cleared."
    __slots__ = ()
    def __del__(self):
        for obj in gc.get_objects():
            module = type(obj).__module__
            if not isinstance(obj, type) and isinstance(module, str) and module.startswith("ctask"):
                found.append(type(obj).__name__)
                for name in dir(type(obj)):
                    if name.startswith(("__", "run_", "_run_once")):
                        continue
                    value = tried(getattr, obj, name)
                    for args in ((), (None,), (b"abc",), (b"abc", None), (obj, obj)):
                        if callable(value):
                            result = tried(value, *args)
                            if hasattr(result, "send"):
                                tried(result.send, None)
                                tried(result.close)
                tried(repr, obj)

def tried(function, *args):
    try:
        return function(*args)
    except BaseException:
        return None

sys.unraisablehook = lambda args: None
found = []
loop.close()
loop = None

def make():
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.late, loop.self = Late(), loop
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    protocol = Protocol()
    protocol.late = Late()
    task = None
    if kind == "stream":
        task = loop.create_task(loop.create_connection(lambda: protocol, sock=mine))
    elif kind == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        task = loop.create_task(loop.create_connection(
            lambda: protocol, sock=mine, ssl=context, server_hostname="x"))
    elif kind == "datagram":
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        mine.setblocking(False)
        task = loop.create_task(loop.create_datagram_endpoint(lambda: protocol, sock=mine))
    elif kind == "pipe":
        read, write = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb")))
        task = loop.create_task(loop.connect_read_pipe(lambda: protocol, read))
        other = loop.create_task(loop.connect_write_pipe(lambda: protocol, write))
    elif kind == "server":
        task = loop.create_task(loop.create_server(lambda: protocol, "127.0.0.1", 0))
    elif kind == "reader":
        task = loop.create_task(asyncio.open_connection(sock=mine))
    elif kind == "lock":
        locks = [asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(0), asyncio.Condition()]
        for lock in locks:
            lock.late, lock.self, lock._loop = Late(), locks, loop
            loop.create_task(lock.wait() if hasattr(lock, "wait") else lock.acquire())
    elif kind == "queue":
        queue = asyncio.Queue(1)
        queue.put_nowait((queue, Late()))
        loop.create_task(queue.put(Late()))
    else:
        future = loop.create_future()
        gathered = asyncio.gather(future, loop.create_task(asyncio.sleep(5)))
        async def waits():
            async with asyncio.TaskGroup() as group:
                group.late, group.self = Late(), group
                group.create_task(asyncio.sleep(3))
                async with asyncio.timeout(5) as timeout:
                    for done in asyncio.as_completed([gathered, future]):
                        await done
        loop.create_task(waits())
        loop.create_task(asyncio.wait([future]))
        loop.create_task(asyncio.wait_for(asyncio.shield(future), 5))
        future.add_done_callback(lambda fut, late=Late(): late)
        future.self = future
    loop.protocol = protocol
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    last = [Late()]
    last.append(last)

for _ in range(3):
    make()
    gc.collect()
class Closed:
    def close(self): pass
loop = Closed()
assert found or STOCK
""")


def test_a_sock_operation_is_collected_whose_future_cannot_be_awaited(script):
    script(
        """
        import gc, socket
        class Other:
            def add_done_callback(self, callback): pass
        class Loop(type(impl.new_event_loop())):
            def create_future(self): return Other()
        loop = Loop()
        a, b = socket.socketpair()
        a.setblocking(False)
        coro = loop.sock_recv(a, 10)
        try:
            coro.send(None)
        except TypeError:
            pass
        cycle = [coro]
        cycle.append(cycle)
        del coro, cycle
        gc.collect()
        a.close(); b.close(); loop.close()
        """
    )


def test_a_socket_changes_its_family_before_and_while_it_connects(script):
    script(
        """
        import asyncio, os, socket
        loop = impl.new_event_loop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("s")
        listener.listen(0)
        held = []
        try:
            while True:
                held.append(socket.socket(socket.AF_UNIX))
                held[-1].setblocking(False)
                held[-1].connect("s")
        except BlockingIOError:
            pass
        probe = socket.create_server(("127.0.0.1", 0))
        address = probe.getsockname()
        probe.close()
        sock = socket.socket()
        sock.setblocking(False)
        coro = loop.sock_connect(sock, "s")
        sock.__init__(socket.AF_UNIX)
        sock.setblocking(False)

        async def main():
            task = loop.create_task(coro)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            refused = socket.socket()
            refused.setblocking(False)
            refused.connect_ex(address)
            os.set_inheritable(sock.detach(), False)
            sock.__init__(socket.AF_INET6, socket.SOCK_STREAM, 0, refused.detach())
            listener.accept()
            await asyncio.wait([task], timeout=0.1)
            task.cancel()

        loop.run_until_complete(main())
        """,
        code=None,
    )
