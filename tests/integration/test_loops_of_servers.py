"""Each way to start a server under `python -m ctask` runs on ctask, or says that it does not.

Also that an application may call install() where a worker imports it.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest
from support import PATIENCE, STOCK, free_port, needs

pytestmark = pytest.mark.skipif(STOCK, reason="about ctask itself")

APP = """\
import asyncio
import ctask
{first}
async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = f"{{ctask.which()}} {{ctask.installed()}}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""
LINE = re.compile(
    r"^ctask: (\w+)\.\S+ runs in process \d+, not ctask's loop: (.+) \(CTASK_QUIET", re.M
)
UVLOOP = find_spec("uvloop") is not None  # it may have no release for the newest Python


@pytest.fixture
def answer(python, directory):
    """Starts a server, asks the application which loop it runs on, and ends the server; returns
    the answer and what the server has printed.
    """

    def answer(*command: str, first: str = "") -> tuple[str, str]:
        port = free_port()
        (directory / "app.py").write_text(APP.format(first=first))
        words = (word.format(port=port) for word in command)
        server = python(*words, cwd=directory, env={"PYTHONSAFEPATH": ""})
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as found:
                    text = found.read().decode()
                    break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline or server.popen.poll() is not None:
                    pytest.fail(server.text)
                time.sleep(0.05)
        server.stop()
        return text, "".join(server.lines)

    return answer


UVICORN = ("-m", "uvicorn", "app:app", "--lifespan", "off", "--port", "{port}")
HYPERCORN = ("-m", "hypercorn", "app:app", "--bind", "127.0.0.1:{port}")
GRANIAN = ("-m", "granian", "app:app", "--interface", "asginl", "--port", "{port}")
GUNICORN = ("-m", "gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--worker-class")


@pytest.mark.parametrize(
    "server",
    [
        pytest.param([*UVICORN, "--loop", "none", "--workers", "2"], id="uvicorn workers"),
        pytest.param([*UVICORN, "--loop", "none", "--reload"], id="uvicorn reloader"),
    ],
)
def test_runs_on_ctask(answer, server):
    text, printed = answer("-m", "ctask", *server)
    assert text == "ctask True"
    assert LINE.search(printed) is None


@pytest.mark.parametrize(
    ("server", "otherwise", "remedy"),
    [
        pytest.param([*UVICORN], "asyncio", "--loop ctask.full:new_event_loop", id="uvicorn"),
        pytest.param(
            [*UVICORN, "--loop", "asyncio", "--workers", "2"],
            "asyncio",
            "--loop ctask.full:new_event_loop",
            id="uvicorn asyncio",
        ),
        pytest.param(
            [*HYPERCORN, "--worker-class", "uvloop", "--workers", "2"],
            None,
            "--worker-class asyncio",
            id="hypercorn",
            marks=needs("uvloop"),
        ),
        pytest.param(GRANIAN, "ctask", "--loop asyncio", id="granian", marks=needs("granian")),
        pytest.param([*GUNICORN, "asgi"], "ctask", "--asgi-loop asyncio", id="gunicorn"),
        pytest.param(
            [*GUNICORN, "uvicorn_worker.UvicornWorker"],
            "asyncio",
            "CONFIG_KWARGS",
            id="uvicorn-worker",
        ),
    ],
)
def test_says_that_it_does_not(answer, server, otherwise, remedy):
    """On uvloop where that is installed, and on what the server takes `otherwise`."""
    text, printed = answer("-m", "ctask", *server)
    chosen = "asyncio" if "asyncio" in server else "uvloop" if UVLOOP else otherwise
    assert text == f"{chosen} True"
    found = LINE.search(printed)
    assert (chosen == "ctask") == (found is None), printed
    if found:
        assert found[1] == chosen
        assert remedy in found[2]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_install_in_an_application_that_workers_import(answer, workers):
    options = ("--loop", "ctask:new_event_loop", "--workers", workers)
    text, printed = answer(*UVICORN, *options, first="ctask.install()")
    assert text == "ctask True"
    assert "Traceback" not in printed


def test_install_in_an_application_on_another_loop_says_what_to_do(python, directory):
    """A worker imports the application inside its loop, and one process before it has one."""
    (directory / "app.py").write_text(APP.format(first="ctask.install()"))
    for workers, said in ("1", LINE.pattern), ("2", "^RuntimeError: ctask.install.. cannot be "):
        words = (word.format(port=free_port()) for word in UVICORN)
        options = ("--loop", "asyncio", "--workers", workers)
        server = python(*words, *options, cwd=directory, env={"PYTHONSAFEPATH": ""})
        line = server.expect(said).string
        assert "start uvicorn with --loop ctask.full:new_event_loop" in line
        server.kill()
