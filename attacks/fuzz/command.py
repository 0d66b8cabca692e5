"""The command line of `python -m ctask`: argument vectors, made of words.

`python` itself says what is right where it knows the form, by its output, its exit status and how
its report of an exception ends. The rest is a refusal, with status 2 and the usage. Never does
ctask show in a traceback. The words are few, and none does harm: the bytes are not run as code.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ctask import __main__ as command

from .supply import Differs, Supply, same

OPTIONS = ("-c", "-m", "-", "--", "--debug", "-h", "--help", "-V", "--version", "-x", "--x", "-I")
PROGRAMS = ("good.py", "bad.py", "raises.py", "exits.py", "folder", "zip", "empty", "none.py", ".")
MODULES = (
    "good",
    "package",
    "package.part",
    "none",
    "package.none",
    "bad",
    "good.py",
    ".",
    "",
    "json",
)
CODE: tuple[str, ...] = (
    "print(__name__)",
    "1/0",
    "import sys; sys.exit(3)",
    "print(__import__('sys').argv)",
    "(",
    "  x=1",
)
CODE += (
    "raise SystemExit('told')",
    "raise SystemExit",
    "\n\nprint(1)",
    "",
    " ",
    "'\\ud800'.encode()",
)
OTHERS = ("", "a", "é", "\udcff", "-", "--", "-c", " ", "\n")
WORDS: tuple[tuple[str, ...], ...] = (OPTIONS, OPTIONS, PROGRAMS, MODULES, CODE, OTHERS)
STDIN = b"import sys\nprint(sys.argv, __name__, __file__)\nraise KeyError\n"
GOOD = "import sys\nprint(__name__, sys.argv, sys.path[0], __file__)\n"


def arguments(supply: Supply) -> list[str]:
    """Up to six; a word may be glued to the one before it."""
    words: list[str] = []
    while supply and len(words) < 6:
        kind = supply.byte()
        word = supply.pick(WORDS[kind % len(WORDS)])
        if kind > 200 and words:
            words[-1] += word
        else:
            words.append(word)
    return words


def known_form(words: list[str]) -> list[str] | None:
    """The same for `python`; None if ctask has to refuse it, or answers itself."""
    for i, word in enumerate(words):
        if word == "--debug":
            continue
        if word == "--":
            rest = words[i + 1 :]
            return ["--", *rest] if rest else None
        if word.startswith(("-c", "-m")):
            return words[i:] if len(word) > 2 or i + 1 < len(words) else None
        return None if word.startswith("-") and word != "-" else words[i:]
    return None


class Target:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        for name, text in (
            ("good.py", GOOD),
            ("bad.py", "x = (\n"),
            ("raises.py", "def f():\n    raise ValueError('told')\nf()\n"),
            ("exits.py", "import sys\nsys.exit(7)\n"),
            ("folder/__main__.py", GOOD),
            ("package/__init__.py", ""),
            ("package/__main__.py", GOOD),
            ("package/part.py", GOOD),
        ):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (self.folder / "empty").mkdir()
        with zipfile.ZipFile(self.folder / "zip", "w") as file:
            file.writestr("__main__.py", GOOD)
        keep = ("PATH", "PYTHONPATH", "PYTHONHASHSEED", "HOME", "ASAN_OPTIONS")
        self.environment = {name: os.environ[name] for name in keep if name in os.environ}
        self.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}

    def python(self, *words: str, preload: str = "") -> tuple[int, bytes, list[str]]:
        """Status, output, and what is told of an exception."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**self.environment, "LD_PRELOAD": preload},
            input=STDIN,
            capture_output=True,
            timeout=50,
        )
        return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace").splitlines()

    def parsed(self, words: list[str]) -> None:
        """In this process, for libFuzzer to see where it goes."""
        argv, environment = sys.argv, dict(os.environ)
        sys.argv = ["ctask", *words]
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                command._parse(sys.argv[1:])
        except SystemExit as end:
            if end.code not in (None, 2):
                raise Differs(f"{words!r}: ends with {end.code!r}") from end
        finally:
            sys.argv = argv
            os.environ.clear()
            os.environ.update(environment)

    def __call__(self, data: bytes) -> None:
        words = arguments(Supply(data))
        self.parsed(words)
        status, out, err = self.python("-m", "ctask", *words, preload=os.environ["FUZZ_PRELOAD"])
        if any("ctask" in line for line in err) and any("Traceback" in line for line in err):
            raise Differs(f"{words!r}: a traceback of ctask's\n" + "\n".join(err))
        form = known_form(words)
        if form is None:
            answers = {"-h", "--help", "-V", "--version"} & set(words)
            if (status != 2 and not (status == 0 and answers)) or "Traceback" in "".join(err):
                raise Differs(f"{words!r}: ends with {status}, {err!r}")
            return
        stock = self.python(*form)
        same([status, out, err[-1:]], [stock[0], stock[1], stock[2][-1:]], repr(words))
