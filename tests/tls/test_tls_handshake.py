"""TLS: the end of the handshake, and callbacks of ssl that fail in it or afterwards."""

import contextlib
import socket
import ssl

import pytest
from helpers.streams import Recorder, make_pair
from helpers.tls_peer import CERTS, Peer, client_context, contexts_for, server_context

PLAIN = {name: vars(ssl.SSLObject)[name] for name in ("read", "write")}
UNDECODABLE = CERTS / "undecodable.pem"  # its own CA; a name in it is no UTF-8


# ---- what ssl is asked when it is done ----


def test_a_certificate_that_cannot_be_decoded_is_refused(begin, steps, until, side, way, reports):
    if side == "client":
        ours, theirs = client_context(way), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(UNDECODABLE)
    else:
        ours, theirs = server_context(way, ask=True), client_context(cert="undecodable.pem")
    ours.load_verify_locations(UNDECODABLE)
    app = Recorder()
    task, peer = begin(side, app, ours, theirs)
    until(lambda: (peer.step(), task.done() and peer.eof)[1])
    assert isinstance(task.exception(), UnicodeDecodeError)
    assert app.events == []
    (report,) = reports.take()
    assert report["message"] == "SSL handshake failed"
    assert report["exception"] is task.exception()


@pytest.mark.parametrize("method", ["getpeercert", "cipher", "compression"])
def test_what_the_socket_answers_is_asked_once_and_may_refuse(begin, until, side, method, reports):
    asked = []

    class Refusing(ssl.SSLObject):
        def getpeercert(self, *args):
            return self.answer("getpeercert", *args)

        def cipher(self, *args):
            return self.answer("cipher", *args)

        def compression(self, *args):
            return self.answer("compression", *args)

        def answer(self, name, *args):
            asked.append(name)
            if name == method:
                raise ssl.SSLError(1, "not with me") if side == "client" else ValueError("no")
            return getattr(super(), name)(*args)

    ours, theirs = contexts_for(side, "direct")
    ours.sslobject_class = Refusing
    app = Recorder()
    task, peer = begin(side, app, ours, theirs)
    until(lambda: (peer.step(), task.done() and peer.eof)[1])
    exc = task.exception()
    assert isinstance(exc, ssl.SSLError if side == "client" else ValueError)
    assert app.events == []
    order = ["getpeercert", "cipher", "compression"]
    assert asked == order[: order.index(method) + 1]
    messages = [report["message"] for report in reports.take()]
    if side == "client":
        assert messages == []
    else:
        in_time = "SSL handshake failed"
        too_late = "Fatal error: protocol.buffer_updated() call failed."
        assert messages == [in_time if method == "getpeercert" else too_late]


def test_what_the_socket_answered_is_what_get_extra_info_shows(begin, steps, side):
    class Answering(ssl.SSLObject):
        def getpeercert(self, *args):
            return "a certificate"

        def cipher(self):
            return "a cipher"

        def compression(self):
            return "a compression"

    ours, theirs = contexts_for(side, "direct")
    ours.sslobject_class = Answering
    seen = {}
    names = ("peercert", "cipher", "compression", "sslcontext", "ssl_object", "nothing")

    def made(app):
        seen.update((name, app.transport.get_extra_info(name, "default")) for name in names)

    app = Recorder(connection_made=made)
    task, peer = begin(side, app, ours, theirs)
    steps(peer, lambda: task.done() and peer.shaken)
    assert isinstance(seen.pop("ssl_object"), Answering)
    assert seen == {
        "peercert": "a certificate",
        "cipher": "a cipher",
        "compression": "a compression",
        "sslcontext": ours,
        "nothing": "default",
    }
    app.transport.abort()


# ---- the first data ----


@pytest.mark.parametrize("side", ["server"])
def test_data_that_comes_with_the_last_message_is_delivered_at_once(begin, shake, until, side, way):
    order = []
    app = Recorder(data_received=lambda app, data: order.append(task.done()))
    task, peer = begin(side, app, *contexts_for(side, way))
    shake(peer)
    peer.tls.write(b"hello")
    peer.send()
    until(lambda: app.data and task.done())
    assert app.data == b"hello" and order == [False]
    app.transport.abort()


# ---- callbacks that fail ----


@pytest.mark.parametrize("how", ["raises", "refuses", "no number"])
def test_a_callback_for_the_name_that_fails(begin, until, way, how, unraisable):
    ours, theirs = contexts_for("server", way)

    def named(sslobj, name, context):
        if how == "raises":
            raise ValueError("not this name")
        return ssl.AlertDescription.ALERT_DESCRIPTION_ACCESS_DENIED if how == "refuses" else "x"

    ours.sni_callback = named
    app = Recorder()
    task, peer = begin("server", app, ours, theirs)
    until(lambda: (peer.step(), task.done() and peer.eof)[1])
    assert isinstance(task.exception(), ssl.SSLError)
    assert app.events == []
    kinds = [kind for kind, _ in unraisable.take()]
    assert kinds == {"raises": [ValueError], "refuses": [], "no number": [TypeError]}[how]


@pytest.mark.parametrize("way_of_data", ["in", "out"])
def test_a_callback_for_messages_that_raises_later(session, until, side, way, way_of_data, reports):
    ours, theirs = contexts_for(side, way)
    failing = []

    def message(*args):
        if failing:
            failing.clear()  # ssl would lose it for another
            raise ValueError("not this message")

    ours._msg_callback = message
    app = Recorder()
    s = session(side, app, ours, theirs)
    s.peer.to_send = b"one"
    until(lambda: (s.peer.step(), app.data)[1])
    failing.append(True)
    if way_of_data == "in":
        s.peer.to_send = b"two"
    else:
        app.transport.write(b"two")
    until(lambda: (s.peer.step(), app.is_lost)[1])
    assert isinstance(app.lost, ValueError) and app.data == b"one"
    (report,) = reports.take()
    assert report["message"] == "Fatal error on SSL protocol"
    ours._msg_callback = None  # the collector does not see it


def test_a_keylog_file_has_the_secrets(session, side, way, tmp_path):
    ours, theirs = contexts_for(side, way)
    ours.keylog_filename = tmp_path / "keys"
    app = Recorder()
    session(side, app, ours, theirs)
    assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()


def is_over(app, task, peer):
    """Let the peer go on; has the connection, or what makes it, failed?"""
    # The peer is in the same thread and may find the error in OpenSSL's queue first.
    with contextlib.suppress(ssl.SSLError):
        peer.step()
    return app.is_lost or (task.done() and task.exception())


def test_a_keylog_file_that_cannot_be_written_ends_the_connection(begin, until, side, way):
    ours, theirs = contexts_for(side, way)
    ours.keylog_filename = "/dev/full"
    app = Recorder()
    task, peer = begin(side, app, ours, theirs)

    until(lambda: is_over(app, task, peer))
    assert isinstance(app.lost if app.events else task.exception(), ssl.SSLError)


# ---- start_tls() ----


def test_start_tls_with_a_keylog_file_that_cannot_be_written_ends_the_connection(
    loop, run, until, side, way
):
    mine, other = make_pair("tcp")
    ours, theirs = contexts_for(side, way)
    ours.keylog_filename = "/dev/full"
    app = Recorder()
    plain, _ = run(loop.create_connection(lambda: app, sock=mine))
    if side == "client":
        starting = loop.start_tls(plain, app, ours, server_hostname="localhost")
        peer = Peer(other, theirs, True)
    else:
        starting = loop.start_tls(plain, app, ours, server_side=True)
        peer = Peer(other, theirs, False, "localhost")
    task = loop.create_task(starting)

    until(lambda: is_over(app, task, peer))
    assert isinstance(app.lost if app.is_lost else task.exception(), ssl.SSLError)
    other.close()


@pytest.mark.parametrize("server_side", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_start_tls_after_the_peer_has_ended_the_connection_fails_at_once(
    loop, run, until, settle, way, server_side, paused
):
    ours, peer = make_pair("tcp")
    app = Recorder(eof_received=lambda app: True)
    transport, _ = run(loop.create_connection(lambda: app, sock=ours))
    if paused:
        transport.pause_reading()
    peer.shutdown(socket.SHUT_WR)
    settle() if paused else until(lambda: app.events[-1:] == [("eof_received",)])
    context = server_context(way) if server_side else client_context(way)
    hostname = None if server_side else "localhost"
    starting = loop.start_tls(
        transport, app, context, server_side=server_side, server_hostname=hostname
    )
    with pytest.raises(ConnectionResetError):
        run(starting)
    settle()
    assert app.is_lost
    peer.close()


# ---- methods and contexts that are replaced ----


@pytest.mark.parametrize("where", ["class", "connection_made"])
def test_replaced_methods_of_the_ssl_object_are_called(begin, steps, side, monkeypatch, where):
    asked = []

    def noting(name, method):
        def noting(*args):
            asked.append(name)
            return method(*args)

        return noting

    def replace(holder):
        for name in ("read", "write"):
            monkeypatch.setattr(holder, name, noting(name, getattr(holder, name)))

    app = Recorder()
    ours, theirs = contexts_for(side, "direct")
    if where == "class":
        replace(ssl.SSLObject)
        theirs.sslobject_class = type("Unpatched", (ssl.SSLObject,), dict(PLAIN))
    else:
        app.on("connection_made", lambda app: replace(app.transport.get_extra_info("ssl_object")))
    task, peer = begin(side, app, ours, theirs)
    peer.to_send = b"hello"
    steps(peer, lambda: task.done() and app.data == b"hello")
    assert set(asked) == {"read"}
    app.transport.write(b"answer")
    assert set(asked) == {"read", "write"}
    steps(peer, lambda: peer.data == b"answer")
    app.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", ["keylog", "message"])
def test_the_context_that_the_name_has_chosen_may_fail(begin, until, way, version, how, reports):
    ours, theirs = contexts_for("server", way)
    other = server_context(way)
    theirs_failing = []
    theirs.maximum_version = version
    ours.sni_callback = lambda sslobj, name, context: setattr(sslobj, "context", other)

    def message(*args):
        if theirs_failing:
            theirs_failing.clear()
            raise ValueError("not this message")

    if how == "keylog":
        other.keylog_filename = "/dev/full"
    else:
        other._msg_callback = message
    app = Recorder()
    task, peer = begin("server", app, ours, theirs)
    with contextlib.suppress(ssl.SSLError, OSError):
        until(lambda: (peer.step(), task.done())[1])
        until(lambda: (peer.step(), peer.shaken or peer.eof)[1])
        theirs_failing.append(True)
        peer.to_send = b"hello"
        until(lambda: (peer.step(), peer.eof)[1])
    task.exception()
    error = ssl.SSLError if how == "keylog" else ValueError
    if app.events:
        until(lambda: app.is_lost)
        assert isinstance(app.lost, error) and app.data == b""
    else:
        assert isinstance(task.exception(), error)
    if how == "message":
        (report,) = reports.take()
        assert report["message"] == "Fatal error on SSL protocol"
    other._msg_callback = None  # the collector does not see it
