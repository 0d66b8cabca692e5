"""The attack `evil`: its table is that of the source, and it finds planted faults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.ctask_only, pytest.mark.slow]

SOURCE = """
/* PyObject_Str(in a comment) */
#define GIVE(x) \\
    do { \\
        Py_DECREF(x); \\
    } while (0)

static PyObject *
first(PyObject *self)
{
    const char *text = "PyObject_Repr(";
    return PyObject_CallNoArgs(self);
}

static inline int quick(PyObject *x) { return PyObject_IsTrue(x); }

static int
second(PyObject *x, int y)
{
    if (y) {
        PyErr_Format(PyExc_TypeError, "this (%.100R)", x);
    }
    return x == NULL;
}

static void
nothing(void)
{
    PyErr_Format(PyExc_TypeError, "this (%d)", 5);
}
"""

ROWS = {"#GIVE": "drop", "first": "call", "quick": "truth", "second": "text"}


@pytest.fixture
def points(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.partition(".")[0] == "attacks"]:
        monkeypatch.delitem(sys.modules, name)
    from attacks.evil import points

    return points


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "src" / "room").mkdir(parents=True)
    (tmp_path / "src" / "room" / "part.c").write_text(SOURCE)
    return tmp_path


def test_points_are_listed_by_function_and_kind(points, tree):
    assert {row.function: row.kinds for row in points.listed(tree)} == ROWS
    assert {row.file for row in points.listed(tree)} == {"room/part.c"}


def test_every_point_of_the_source_is_in_a_function(points):
    def number(text):
        return sum(len(called.findall(text)) for _, called in points.CALLED)

    for path in points.sources(ROOT):
        text = points.code(path.read_text())
        found = points.functions(text)
        defined = sum(number(f"{name}(") for name, _ in found)
        assert sum(number(body) for _, body in found) + defined == number(text), path


def test_the_table_is_that_of_the_source(points):
    from attacks import evil

    assert evil.check() == 0


def test_a_table_is_read_as_written(points, tree, tmp_path):
    rows = points.listed(tree)
    rows[0] = rows[0]._replace(programs="none", note="all ours")
    points.write(rows, tmp_path / "table")
    assert points.read(tmp_path / "table") == rows


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("CallNoArgs(self)", "CallNoArgs(PyObject_Str(self))", "first() has call text"),
        ("    return x ==", "    Py_DECREF(x); return x ==", "second() has text drop"),
        ("%d", "%S", "nothing() has no row"),
        ("PyObject_IsTrue(x)", "1", "quick() is in the table, and no point"),
        ("Py_DECREF(x);", "Py_DECREF(x); Py_DECREF(x);", None),
    ],
)
def test_a_change_of_the_source_shows(points, tree, old, new, told):
    table = points.listed(tree)
    (tree / "src" / "room" / "part.c").write_text(SOURCE.replace(old, new))
    found = points.differences(points.listed(tree), table, set())
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_rows_that_say_nothing_show(points, tree):
    table = points.listed(tree)
    table[0] = table[0]._replace(programs="none")
    table[1] = table[1]._replace(programs="known unknown")
    found = points.differences(points.listed(tree), table, {"known"})
    assert len(found) == 2
    assert "why can nothing foreign run there" in found[0]
    assert "no program is called unknown" in found[1]


def test_what_was_said_of_a_row_is_kept(points, tree):
    row, *others = points.listed(tree)
    said = row._replace(kinds="text", programs="none", note="all ours")
    assert points.merged([row, *others], [said])[0] == said._replace(kinds=row.kinds)


PLANTED = {
    "crash (signal 11)": "ctypes.string_at(0)",
    "SystemError: planted": "world.broken.append('SystemError: planted')",
    "": "world.value()",
}


@pytest.mark.skipif(
    "libasan" in Path("/proc/self/maps").read_text(), reason="it ends a crash in its own way"
)
@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(points, monkeypatch, tmp_path, capsys, fault):
    from attacks import evil

    (tmp_path / "sitecustomize.py").write_text(f"""
import ctypes, sys
sys.path.append({str(ROOT)!r})
from attacks.evil import programs

def plant(world):
    return [lambda: {PLANTED[fault]}]

programs.PROGRAMS["handles"] = plant
""")
    path = [str(tmp_path), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    options = ["--program", "handles", "--steps", "4"]
    assert evil.run(1, 1, options) == (fault != "")
    out = capsys.readouterr().out
    assert fault in out
    assert ("--case handles:1.0:" in out) == (fault != "")


def test_programs_do_not_end_badly(points):
    from attacks import evil

    assert evil.run(1, 8, ["--no-shrink", "--steps", "10"]) == 0


def test_who_called_is_told_whatever_else_is_printed(points, monkeypatch):
    from attacks import evil

    def play(*args):
        return evil.Outcome("", 'SystemError: {\n\nmarks ["path", [[1, 2], [3]]]\nstands\n', "")

    seen, marked = [], []
    monkeypatch.setattr(evil, "play", play)
    monkeypatch.setattr(evil, "reached", lambda *args: seen.append(args) or {("file", "name")})
    monkeypatch.setattr(evil, "mark", marked.append)
    assert evil.run(1, 1, ["--mark", "--program", "handles"]) == 0
    assert seen == [("path", {(1, 2), (3,)})]
    assert marked == [{("file", "name"): {"handles"}}]
