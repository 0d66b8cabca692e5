"""add_reader(), add_writer() and what they are given: objects, numbers, what was closed since."""

import asyncio
import gc
import os
import selectors
import socket
import weakref

import pytest

BOTH = pytest.mark.parametrize("side", ["reader", "writer"])


class Named:
    """An object with a fileno(), which can be taken away."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd


def methods(loop, side):
    return getattr(loop, f"add_{side}"), getattr(loop, f"remove_{side}")


@BOTH
def test_a_closed_socket_that_is_registered_can_be_removed_once(loop, pair, side):
    add, remove = methods(loop, side)
    a, _ = pair
    add(a, print, "event")
    a.close()
    assert remove(a) is True
    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            remove(a)


@BOTH
def test_a_closed_socket_that_was_registered_by_its_number_is_not_known(loop, pair, side):
    add, remove = methods(loop, side)
    a, _ = pair
    fd = a.fileno()
    add(fd, print, "event")
    a.close()
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        remove(a)
    assert remove(fd) is True
    assert remove(fd) is False


@pytest.mark.ctask_only
def test_a_closed_socket_is_known_until_both_sides_are_removed(loop, pair):
    """asyncio's first remove raises OSError, and forgets both."""
    a, _ = pair
    loop.add_reader(a, print)
    loop.add_writer(a.fileno(), print)
    a.close()
    assert loop.remove_reader(a) is True
    assert loop.remove_reader(a) is False
    assert loop.remove_writer(a) is True
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.remove_writer(a)


def test_the_object_of_a_moved_description_can_be_removed(loop, turn, pair):
    """A duplicate is open, so that the kernel goes on telling."""
    a, b = pair
    seen = []
    loop.add_reader(a, seen.append, 1)
    duplicate = os.dup(a.fileno())
    a.close()
    b.send(b"x")
    turn()
    assert loop.remove_reader(a) is True
    turn()
    seen.clear()
    b.send(b"x")
    for _ in range(3):
        turn()
    assert seen == []
    os.close(duplicate)


@BOTH
def test_any_object_with_fileno_is_remembered(loop, pair, side):
    add, remove = methods(loop, side)
    named = Named(pair[0].fileno())
    add(named, print)
    named.fd = -1
    assert remove(named) is True
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        remove(named)


@BOTH
def test_what_is_registered_is_kept_alive_and_let_go_with_the_last_handle(loop, pair, side):
    add, remove = methods(loop, side)
    a, _ = pair
    named = Named(a.fileno())
    ref = weakref.ref(named)
    add(named, print)
    del named
    gc.collect()
    assert ref() is not None
    assert remove(a.fileno()) is True
    gc.collect()
    assert ref() is None


@BOTH
def test_replacing_the_callback_by_number_keeps_the_object(loop, pair, side):
    add, remove = methods(loop, side)
    named = Named(pair[0].fileno())
    add(named, print)
    add(named.fd, print)
    named.fd = -1
    assert remove(named) is True


def test_closing_the_loop_lets_go_of_what_is_registered(loop, pair):
    named = Named(pair[0].fileno())
    ref = weakref.ref(named)
    loop.add_reader(named, print)
    del named
    loop.close()
    gc.collect()
    assert ref() is None


def test_an_object_that_refers_to_the_loop_is_collected_with_it(impl, pair):
    loop = impl.new_event_loop()
    named = Named(pair[0].fileno())
    named.loop = loop
    loop.add_reader(named, print)
    ref = weakref.ref(named)
    loop.close()
    del loop, named
    gc.collect()
    assert ref() is None


def test_letting_go_of_an_object_may_register_others(loop, turn, pair):
    """Its finalizer runs in the middle of remove_reader()."""
    a, b = pair
    seen = []

    class Last(Named):
        def __del__(self):
            loop.add_reader(a, seen.append, "from __del__")
            with socket.socket() as other:  # a larger number, perhaps a larger table
                loop.add_writer(os.dup2(other.fileno(), 500), print)
            loop.remove_writer(500)
            os.close(500)

    loop.add_reader(Last(a.fileno()), print)
    assert loop.remove_reader(a.fileno()) is True
    b.send(b"x")
    turn()
    turn()
    assert set(seen) == {"from __del__"}
    assert loop.remove_reader(a) is True


@pytest.mark.parametrize("fd", [987, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 80])
def test_numbers_that_are_no_descriptors(loop, fd):
    for add, remove in (methods(loop, "reader"), methods(loop, "writer")):
        words = "too large to convert to C int" if fd >> 31 else "Bad file descriptor"
        with pytest.raises((OSError, OverflowError), match=words):
            add(fd, print)
        assert remove(fd) is False


@pytest.mark.parametrize("fd", [-1, -(1 << 40)])
def test_negative_numbers(loop, fd):
    for method in (*methods(loop, "reader"), *methods(loop, "writer")):
        with pytest.raises(ValueError, match=f"Invalid file descriptor: {fd}"):
            method(fd, *([print] if method.__name__.startswith("add") else []))


def test_objects_without_a_descriptor(loop):
    for obj in (object(), "text", 1.5, None, Named("text"), Named(None)):
        for method in (*methods(loop, "reader"), *methods(loop, "writer")):
            with pytest.raises(ValueError, match="Invalid file object: "):
                method(obj, *([print] if method.__name__.startswith("add") else []))


def test_an_overflow_in_fileno_is_not_taken_for_a_number_that_is_too_large(loop):
    class Overflows:
        def fileno(self):
            raise OverflowError("its own")

    selector = loop._selector
    for ask in (loop._remove_reader, loop._remove_writer, selector.get_key, selector.get_map().get):
        with pytest.raises(OverflowError, match="its own"):
            ask(Overflows())


@BOTH
@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_fileno_that_fails_once_fails_the_call(loop, pair, side, error):
    class Once(Named):
        def fileno(self):
            fd, self.fd = self.fd, pair[0].fileno()
            if fd is None:
                raise error("once")
            return fd

    for method in methods(loop, side):
        with pytest.raises(error, match="Invalid file object" if error is ValueError else "once"):
            method(Once(None), *([print] if method.__name__.startswith("add") else []))


def test_a_file_the_kernel_cannot_poll_is_refused_and_not_known(loop, tmp_path):
    with open(tmp_path / "file", "w") as file:
        for add, remove in (methods(loop, "reader"), methods(loop, "writer")):
            with pytest.raises(PermissionError):
                add(file, print)
            assert remove(file) is False
    with pytest.raises(ValueError, match="I/O operation on closed|Invalid file object"):
        loop.remove_reader(file)


# ---- loop._selector, as libraries look at it


def test_the_selector_tells_who_watches(loop, pair):
    a, _ = pair
    selector = loop._selector
    with pytest.raises(KeyError, match="is not registered"):
        selector.get_key(a)
    assert a.fileno() not in selector.get_map()
    assert selector.get_map().get(a) is None
    before = len(selector.get_map())
    loop.add_reader(a, print)
    key = selector.get_key(a.fileno())
    assert type(key) is selectors.SelectorKey
    assert (key.fileobj, key.fd, key.events) == (a, a.fileno(), selectors.EVENT_READ)
    reader, writer = key.data
    assert writer is None
    assert not reader.cancelled()
    loop.add_writer(a, print)
    key = selector.get_map()[a]
    assert key.events == selectors.EVENT_READ | selectors.EVENT_WRITE
    assert all(isinstance(handle, asyncio.Handle) for handle in key.data)
    assert a.fileno() in selector.get_map()
    assert a.fileno() in list(selector.get_map())
    assert len(selector.get_map()) == before + 1
    fd = a.fileno()
    loop.remove_reader(a)
    a.close()
    assert selector.get_key(a).fd == fd
    loop.remove_writer(fd)
    assert len(selector.get_map()) == before
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        selector.get_key(a)


def test_the_selector_of_a_closed_loop(loop):
    selector = loop._selector
    loop.close()
    assert loop._selector is None
    assert selector.get_map() is None
    with pytest.raises(RuntimeError, match="Selector is closed"):
        selector.get_key(0)
