"""tools/rooms, which holds the order of the source's rooms: what it refuses, and what it draws."""

import shutil
import subprocess
import sys

import pytest
from helpers.checkout import ROOT

pytestmark = pytest.mark.ctask_only


@pytest.fixture
def house(tmp_path):
    """A copy of the source; house(part, line) adds a line to a part, and is what is said of it."""
    for folder in ("src", "docs", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)

    def look(part, line, *options):
        with (tmp_path / part).open("a") as file:
            file.write(line)
        done = subprocess.run(
            [sys.executable, tmp_path / "tools" / "rooms", *options], capture_output=True, text=True
        )
        return done.returncode, done.stdout

    return look


def test_all_is_in_order(house):
    assert house("src/base/list.h", "") == (0, "rooms: in order\n")


def test_include_of_a_higher_room_is_refused(house):
    status, said = house("src/tasks/task.c", '#include "io/transport.h"\n')
    assert status == 1
    assert "tasks/task.c uses io/transport.h, of a higher room: #include" in said


def test_call_of_a_higher_room_is_refused(house):
    status, said = house("src/loop/wake.c", "int (*f)(PyObject *, ctask_state *) = stream_setup;\n")
    assert status == 1
    assert "loop/wake.c uses io/stream.c, of a higher room: stream_setup" in said


def test_two_parts_that_use_each_other_are_refused(house):
    status, said = house("src/sync/waiters.c", "void *f = lock_setup;\n")
    assert status == 1
    assert "go round: sync/lock sync/" in said


def test_header_that_includes_what_includes_it_is_refused(house):
    status, said = house("src/handles/objects.h", '#include "handles/work.h"\n')
    assert status == 1
    assert "go round: handles/objects.h handles/work\n" in said


def test_inline_function_that_calls_what_includes_it_is_refused(house):
    line = "static inline int f(LoopObj *loop) { return loop_check_overrides(loop); }\n"
    status, said = house("src/handles/objects.h", line)
    assert status == 1
    assert "go round: handles/objects.h handles/work\n" in said


def test_declaration_is_no_use(house):
    assert house("src/handles/objects.h", "PART int loop_check_overrides(LoopObj *loop);\n")[0] == 0


def test_another_house_than_the_drawn_one_is_refused_until_it_is_drawn(house):
    part, line = "src/streams/streamwriter.c", "void *f = streamreader_setup;\n"
    status, said = house(part, line)
    assert status == 1
    assert said.startswith("FAILED  design.md draws another house")
    assert house(part, "", "--draw")[0] == 0
    assert house(part, "")[0] == 0
