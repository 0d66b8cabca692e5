"""The attack `mends`: its edits fit the source, and it says what was found and what was not."""

from __future__ import annotations

import ast
import sys

import pytest
from helpers.checkout import ROOT, package

package("attacks")
from attacks import _edits, mends  # noqa: E402
from attacks.mends.table import MENDS  # noqa: E402

pytestmark = pytest.mark.ctask_only


@pytest.mark.parametrize("mend", MENDS, ids=lambda mend: mend.name)
def test_each_edit_fits_the_source(mend):
    assert _edits.misfits(mend.edits) == []


def test_each_fault_is_there_once_and_has_its_attack():
    assert len({mend.name for mend in MENDS}) == len(MENDS) > 50
    for mend in MENDS:
        assert mend.attack[0] in mends.REPORTS, mend.name
        assert bool(mend.why) == (mend.attack[0] == "tests"), mend.name


def test_tests_that_find_a_fault_are_there():
    for mend in MENDS:
        if mend.attack[0] == "tests":
            path = ROOT / "tests" / mend.attack[1]
            tree = ast.parse(path.read_text())
            names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            words = mend.attack[3].split(" or ") if len(mend.attack) > 2 else ["test_"]
            assert any(word in name for word in words for name in names), mend.name


def test_an_edit_that_does_not_fit_is_told(tmp_path):
    edit = _edits.Edit("ctask.c", "no such words", "")
    assert _edits.misfits([edit]) == ["ctask.c has 0 times: no such words"]
    with pytest.raises(LookupError, match="has 0 times"):
        _edits.built([edit], tmp_path)


def test_edits_of_a_file_come_one_after_the_other():
    first = _edits.Edit("setup.py", '"-O3"', '"-O0", "-O0"')
    assert _edits.misfits([first, _edits.Edit("setup.py", '"-O0"', "")]) == [
        'setup.py has 2 times: "-O0"'
    ]


@pytest.mark.parametrize(
    ("attack", "said", "after"),
    [
        (("transports",), "---- 1: program 7-4, loop", "5 programs"),
        (("programs",), "==== seed 9, mode loop", "3 programs"),
        (("evil",), "  --case io:7.11:0,1", "12 programs"),
        (("interrupts",), "  --first 1: calls: never called", "2 times 500 signals"),
        (("soak",), "  --scenario tcp: RSS grow", "1 scenario"),
        (("tests", "io/test_sock.py"), "FAILED test_sock.py::test_it", "1 test"),
        (("transports",), "transports: nothing found, 3 s", ""),
    ],
    ids=["transports", "programs", "evil", "interrupts", "soak", "tests", "nothing"],
)
def test_what_an_attack_says_is_understood(tmp_path, monkeypatch, attack, said, after):
    begins = said != "transports: nothing found, 3 s"
    text = f"import time; print({said!r}, flush=True); time.sleep({60 * begins})"
    monkeypatch.setattr(mends, "command", lambda attack, seed: [sys.executable, "-c", text])
    outcome = mends.attacked(attack, 7, tmp_path / "built")
    assert outcome.after == after
    assert outcome.seconds < 30


@pytest.mark.parametrize(("after", "told"), [("3 programs", "3 programs"), ("", "NOT FOUND")])
def test_a_row_says_what_was_found_after_how_many(monkeypatch, capsys, after, told):
    given = []
    outcome = mends.Outcome(after, 2.4, "")
    monkeypatch.setattr(mends, "built", lambda edits, folder: given.append(edits))
    monkeypatch.setattr(mends, "attacked", lambda attack, *more: outcome)
    missed = mends.run(1, 100, ["--only", "tcp_urgent_data"])
    (urgent,) = (mend for mend in MENDS if mend.name == "tcp_urgent_data")
    assert given == [urgent.edits]
    row = f"| tcp_urgent_data | `{' '.join(urgent.attack)}` | {told} | 2 |\n"
    assert row in capsys.readouterr().out
    assert missed == (not after)


@pytest.mark.parametrize("after", ["", "3 programs"])
def test_the_source_as_it_is_has_to_be_left_in_silence(monkeypatch, capsys, after):
    played = []

    def attacked(attack, *more):
        played.append(attack)
        return mends.Outcome(after, 1.0, "")

    monkeypatch.setattr(mends, "built", lambda edits, folder: None)
    monkeypatch.setattr(mends, "attacked", attacked)
    found = mends.run(1, 100, ["--only", "nothing"])
    assert len(played) == len(set(played)) > 5
    assert found == (len(played) if after else 0)
    assert ("FOUND, 3 programs" in capsys.readouterr().out) == bool(after)
