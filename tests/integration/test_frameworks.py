"""docs/frameworks.md and docs/scaling.md: each program of the pages is written to a file, each
command is run, and ctask is what answers.

Only where a server listens is changed, to a port that is free.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import PATIENCE, STOCK, free_port, needs

pytestmark = pytest.mark.skipif(STOCK, reason="about ctask itself")

DOCS = Path(__file__).parent.parent.parent / "docs"
BIN = sysconfig.get_path("scripts")
SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)
BLOCK = re.compile(r"(?:^`([\w.]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANSWER = "ctask"


class Section:
    """The files and commands of one chapter, in order; a test uses all of them."""

    def __init__(self, text: str) -> None:
        self.files: dict[str, str] = {}
        self.commands: list[str] = []
        for name, kind, block in BLOCK.findall(text):
            if kind == "sh":
                self.commands += [line for line in block.splitlines() if line[0] != "#"]
            else:
                assert name, f"a program without a name: {block}"
                self.files[name] = block


_, *parts = SECTION.split((DOCS / "frameworks.md").read_text())
NAMES = ["test_" + name.lower().replace("-", "_") for name in parts[::2]]
SECTIONS = dict(zip(NAMES, map(Section, parts[1::2]), strict=True))
PORT = re.compile(r"\b(8000|8786)\b")


class Page:
    def __init__(self, section: Section, directory: Path, start) -> None:
        self.directory = directory
        self.port = free_port()
        self.commands = [PORT.sub(str(self.port), command) for command in section.commands]
        self._start = start
        (directory / "work").mkdir()
        (directory / "home").mkdir()
        for name, text in section.files.items():
            (directory / "work" / name).write_text(PORT.sub(str(self.port), text))

    def begin(self, *more: str):
        """Start the next command of the page."""
        words = [*shlex.split(self.commands.pop(0)), *more]
        words[0] = sys.executable if words[0] == "python" else os.path.join(BIN, words[0])
        path = os.pathsep.join([BIN, os.environ["PATH"]])
        return self._start(
            *words,
            cwd=self.directory / "work",
            env={"PATH": path, "HOME": str(self.directory / "home"), "PYTHONPATH": ""},
        )

    def run(self) -> str:
        """Run the next command of the page to its end; return what it prints."""
        process = self.begin()
        assert process.wait() == 0, process.text
        return "".join(process.lines)

    def ask(self, port: int | None = None) -> str:
        url = f"http://127.0.0.1:{port or self.port}/"
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    return answer.read().decode()
            except urllib.error.URLError as error:
                # Some servers say that they are ready before they listen.
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                assert time.monotonic() < deadline, error
                time.sleep(0.05)

    def serve(self, ready: str, *more: str) -> None:
        """Start the next command, a server; it answers, and ends when it is told to."""
        process = self.begin(*more)
        process.expect(ready)
        assert ANSWER in self.ask()
        status = process.stop()
        assert status in (0, -signal.SIGTERM), process.text
        assert "Traceback" not in process.text, process.text


@pytest.fixture
def page(request, directory, start):
    """The chapter that the test is named after; all its commands are run at the end."""
    page = Page(SECTIONS[request.node.name], directory, start)
    yield page
    assert page.commands == []


def test_every_chapter_is_tested():
    assert SECTIONS.keys() <= globals().keys()


def test_asyncio(page):
    assert page.run() == "<class 'ctask._loop.EventLoop'>\n" * 2
    assert page.run() == "<class 'ctask._loop.EventLoop'>\n"


def test_uvloop(page):
    if sys.version_info >= (3, 14):
        page.commands[0] = page.commands[0].replace("python", "python -W ignore", 1)
    assert page.run() == "<class 'ctask._loop.EventLoop'>\n" * 5


def test_uvicorn(page):
    page.serve("Uvicorn running", "--port", str(page.port))
    page.serve("Uvicorn running")


def test_fastapi(page):
    page.serve("Uvicorn running", "--port", str(page.port))


def test_django(page):
    page.serve("Uvicorn running", "--port", str(page.port))
    page.serve("development server at")
    assert page.run() == "<class 'ctask._loop.EventLoop'>\n"


def test_hypercorn(page):
    page.serve("Running on", "--bind", f"127.0.0.1:{page.port}")
    page.serve("Running on")


@needs("granian")
def test_granian(page):
    page.serve("Started worker")


@needs("daphne")
def test_daphne(page):
    page.serve("Listening on TCP")


def test_gunicorn(page):
    page.serve("Booting worker", "--bind", f"127.0.0.1:{page.port}")
    page.serve("Application startup complete", "--bind", f"127.0.0.1:{page.port}")
    page.serve("Booting worker", "--bind", f"127.0.0.1:{page.port}")


def test_aiohttp(page):
    page.serve("Running on")
    page.serve("Booting worker", "--bind", f"127.0.0.1:{page.port}")


def test_anyio(page):
    assert page.run() == "<class 'ctask._loop.EventLoop'>\n"
    assert "1 passed" in page.run()


def test_pytest_asyncio(page):
    assert "1 passed" in page.run()


def test_unittest(page):
    assert "Ran 1 test" in page.run()


def test_tornado(page):
    page.serve("listening")


def test_jupyter(page):
    page.run()
    assert page.run().endswith("\n<class 'ctask._loop.EventLoop'>\n\n")


def test_dask(page):
    import distributed

    scheduler = page.begin()
    scheduler.expect("Scheduler at:")
    workers = page.begin()
    with distributed.Client(f"tcp://127.0.0.1:{page.port}", timeout=PATIENCE) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
    assert workers.stop() in (0, -signal.SIGTERM)
    assert page.run() == "4950 {'ctask._loop'}\n"


SCALING = (DOCS / "scaling.md").read_text()
# examples/interpreters.py has a test of its own, in tests/workshop.
INTERPRETERS = re.compile(r"^## One process.*?(?=^## )", re.MULTILINE | re.DOTALL)
SERVERS, _, DASK = INTERPRETERS.sub("", SCALING).partition("## Several machines: Dask")


def test_scaling(directory, start):
    section = Section(DASK.replace("scheduler-node", "127.0.0.1"))
    section.files |= SECTIONS["test_dask"].files
    page = Page(section, directory, start)
    page.begin().expect("Scheduler at:")
    workers = page.begin()
    for _ in range(4):
        workers.expect("Registered to:")
    page.commands.append("python -m ctask which.py")
    answer = page.run()
    assert answer.count("ctask") == 1 + 4 + 4, answer


@pytest.mark.parametrize("command", ["uvicorn", "dask worker"])
def test_options_of_the_scaling_page_exist(command, directory, start):
    text = DASK if command == "dask worker" else SERVERS
    page = Page(Section(""), directory, start)
    page.commands.append(f"{command} --help")
    known = page.run()
    options = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--port"}
    assert options
    assert [option for option in options if not re.search(rf"{option}\b", known)] == []
