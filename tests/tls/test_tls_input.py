"""TLS: what has come from the peer, and what Python code in between can do to it."""

import pytest
from helpers.streams import Recorder, make_pair
from helpers.tls_peer import Viewed, client_context, server_context


@pytest.fixture
def other():
    """A socket with 200 kB to read, and a function that fills it again."""
    ours, peer = make_pair("unix")

    def fill():
        try:
            while True:
                peer.send(b"Z" * 4096)
        except BlockingIOError:
            pass

    fill()
    yield ours, fill
    ours.close()
    peer.close()


def receive_now(loop, sock):
    """loop.sock_recv() as an eager task has it run: to its end, inside whoever calls this."""
    coro = loop.sock_recv(sock, 65536)
    with pytest.raises(StopIteration) as ended:
        coro.send(None)
    assert set(ended.value.value) == set(b"Z")


@pytest.mark.parametrize("protocol", [Recorder, Viewed])
@pytest.mark.parametrize(
    "where", ["connection_made", "data_received", "buffer_updated", "get_buffer", "eof_received"]
)
def test_other_connections_are_read_in_between(
    loop, begin, shake, until, way, other, protocol, where
):
    sock, fill = other

    def hook(protocol, *args):
        fill()
        receive_now(loop, sock)
        return protocol.buffer if where == "get_buffer" else None

    app = protocol(**{where: hook})
    task, peer = begin("server", app, server_context(way), client_context())
    shake(peer)  # its last message and its data are one read for us
    sent = b""
    for i in range(4):
        sent += b"%d" % i * 16000
        peer.tls.write(sent[-16000:])
    peer.send()
    until(lambda: app.data == sent)
    peer.unwrap()
    until(lambda: app.is_lost)
    assert app.lost is None and task.done()
    task.result()


def test_the_context_of_a_connection_that_is_read_in_a_callback_of_ssl(
    loop, begin, steps, way, other
):
    sock, fill = other
    context = server_context(way)
    names = []

    def named(sslobj, name, original):
        names.append(name)
        receive_now(loop, sock)

    context.sni_callback = named
    app = Recorder()
    task, peer = begin("server", app, context, client_context())
    steps(peer, lambda: task.done() and peer.shaken)
    peer.to_send = b"hello"
    steps(peer, lambda: app.data == b"hello")
    assert names == ["localhost"]
    app.transport.abort()
