"""Methods of transports that a test has replaced, as unittest.mock does."""

import asyncio
import unittest.mock

import pytest
from helpers.streams import Recorder, receive


@pytest.mark.parametrize(
    "cls", ["asyncio.Transport", "asyncio.BaseTransport", "asyncio.WriteTransport"]
)
@pytest.mark.parametrize("how", [{}, {"autospec": True}])
def test_a_patched_get_extra_info_of_asyncios_classes_answers(link, cls, how):
    transport, _ = link(Recorder())
    family = transport.get_extra_info("socket").family
    with unittest.mock.patch(f"{cls}.get_extra_info", **how) as patched:
        patched.return_value = ("host", 1234)
        assert transport.get_extra_info("sockname") == ("host", 1234)
        arguments = [transport, "sockname"] if how else ["sockname"]
        patched.assert_called_once_with(*arguments)
    assert transport.get_extra_info("socket").family == family
    assert transport.get_extra_info("nothing", 3) == 3


@pytest.mark.parametrize("name", ["write", "writelines", "is_closing"])
@pytest.mark.parametrize("of", [lambda t: t, type], ids=["instance", "class"])
def test_a_stream_writer_calls_a_replaced_method_of_its_transport(
    impl, loop, link, run, turn, name, of
):
    transport, peer = link(Recorder())
    reader = impl.StreamReader(loop=loop)
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    protocol.connection_made(transport)
    transport.set_protocol(protocol)
    writer = impl.StreamWriter(transport, protocol, reader, loop)

    async def use():
        writer.write(b"data")
        writer.writelines([b"more"])
        await writer.drain()

    with unittest.mock.patch.object(of(transport), name, return_value=False) as patched:
        run(use())
        assert patched.called
    expected = {"write": b"more", "writelines": b"data", "is_closing": b"datamore"}[name]
    assert receive(peer, turn, len(expected)) == expected
    run(use())
    assert receive(peer, turn, 8) == b"datamore"
    writer.close()
    run(writer.wait_closed())


def test_attributes_of_a_transport_are_the_programs(link, until):
    transport, peer = link(Recorder())
    transport.note = "mine"
    transport.write(b"x")
    assert peer.recv(10) == b"x"
    assert transport.note == "mine"
    assert isinstance(transport, asyncio.Transport)
