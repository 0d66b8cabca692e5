"""Which loop runs, who is told if it is not ctask's, and how it comes to be.

install() beside loops that run, what children of `python -m ctask` inherit, and programs that come
from uvloop.
"""

import asyncio
import os
import re
import sys
import types

import pytest

import ctask
from ctask import _install

pytestmark = pytest.mark.ctask_only

get_policy = _install._get_policy
set_policy = _install._set_policy


@pytest.fixture
def put_back():
    """Whatever a test installs, nothing is installed afterwards."""
    assert not ctask.installed()
    policy = get_policy()
    yield
    ctask.uninstall()
    set_policy(policy)


@pytest.fixture
def told(monkeypatch, capfd):
    """Returns what the process was told on stderr since it was asked last."""
    monkeypatch.setattr("ctask._which._told", None)
    monkeypatch.delenv("CTASK_QUIET", raising=False)
    return lambda: capfd.readouterr().err


async def where():
    return ctask.which()


def run_on(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(where())


# ---- which(), installed(), repr() ----


def test_which_is_the_package_of_the_running_loop(monkeypatch):
    assert ctask.which() is None
    assert run_on(ctask.new_event_loop) == "ctask"
    assert run_on(asyncio.SelectorEventLoop) == "asyncio"

    class Loop(asyncio.SelectorEventLoop):
        __module__ = "another.package"

    class Ours(ctask.EventLoop):
        __module__ = "another.package"

    assert run_on(Loop) == "another"
    assert run_on(Ours) == "ctask"
    assert ctask.which() is None


def test_installed(put_back):
    ctask.install()
    assert ctask.installed() is True
    ctask.uninstall()
    assert ctask.installed() is False


def test_repr_names_ctask():
    class Mine(ctask.EventLoop):
        pass

    for cls, name in (ctask.EventLoop, "ctask.EventLoop"), (Mine, "Mine (ctask.EventLoop)"):
        loop = cls()
        assert repr(loop) == f"<{name} running=False closed=False debug={loop.get_debug()}>"
        loop.close()


# ---- another loop runs after install() ----

LINE = re.compile(
    r"ctask: (\S+) runs in process (\d+), not ctask's loop: .+ \(CTASK_QUIET=1 silences this\)\n"
)


def test_another_loop_is_told_of_once(put_back, told):
    ctask.install()
    run_on(ctask.new_event_loop)
    asyncio.run(where())
    assert told() == ""
    for _ in range(2):
        assert run_on(asyncio.SelectorEventLoop) == "asyncio"
    found = LINE.fullmatch(told())
    assert found and found.groups() == ("asyncio.SelectorEventLoop", str(os.getpid()))


def test_nobody_is_told_of_ctasks_loops_of_other_classes(put_back, told):
    class Mine(ctask.EventLoop):
        pass

    ctask.install()
    run_on(Mine)
    assert told() == ""


def test_nobody_is_told_who_has_not_asked(put_back, told):
    run_on(asyncio.SelectorEventLoop)
    ctask.install()
    ctask.uninstall()
    run_on(asyncio.SelectorEventLoop)
    assert told() == ""


def test_nobody_is_told_after_uninstall_by_who_kept_the_function(put_back, told):
    """As uvloop does, when it is imported in between."""
    ctask.install()
    kept = asyncio._set_running_loop
    ctask.uninstall()
    loop = asyncio.SelectorEventLoop()
    kept(loop)
    assert asyncio._get_running_loop() is loop
    kept(None)
    assert told() == ""
    ctask.install()
    kept(loop)
    kept(None)
    loop.close()
    assert LINE.fullmatch(told())


def test_quiet(put_back, told, monkeypatch):
    monkeypatch.setenv("CTASK_QUIET", "1")
    ctask.install()
    run_on(asyncio.SelectorEventLoop)
    assert told() == ""
    monkeypatch.setenv("CTASK_QUIET", "0")
    run_on(asyncio.SelectorEventLoop)
    assert LINE.fullmatch(told())


@pytest.mark.parametrize("name", ["uvicorn", "granian", "gunicorn", "hypercorn"])
def test_the_line_says_what_to_do_with_a_server(put_back, told, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    ctask.install()
    run_on(asyncio.SelectorEventLoop)
    line = told()
    assert LINE.fullmatch(line)
    assert name in line


@pytest.mark.parametrize("stderr", ["None", "open(os.devnull)"])
def test_a_loop_runs_though_nobody_can_be_told(script, stderr):
    out = script(
        f"""
        import asyncio, os, sys
        import ctask
        ctask.install()
        async def main():
            print(ctask.which())
        stderr, sys.stderr = sys.stderr, {stderr}
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())
        if sys.stderr:
            sys.stderr.close()
        sys.stderr = stderr
        """,
        bare=True,
    )
    assert (out.out, out.err) == ("asyncio\n", "")


def test_each_forked_process_is_told(script):
    out = script(
        """
        import asyncio, os
        import ctask
        ctask.install()
        async def main():
            pass
        def run():
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(main())
        run()
        pid = os.fork()
        if pid == 0:
            run()
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        bare=True,
    )
    assert len(LINE.findall(out.err)) == 2


# ---- install() while a loop runs ----


def test_install_while_ctasks_loop_runs(put_back):
    async def main():
        queue, lock, event = asyncio.Queue(), asyncio.Lock(), asyncio.Event()

        async def work():
            async with lock, asyncio.timeout(60):
                await queue.put(await asyncio.shield(asyncio.sleep(0, 1)))
                await event.wait()
                return await asyncio.wait_for(queue.get(), 60)

        before = [asyncio.create_task(work()) for _ in range(2)]
        await asyncio.sleep(0)
        ctask.install()
        ctask.install()
        assert asyncio.Queue is ctask.Queue
        after = [asyncio.create_task(work())]
        event.set()
        assert await asyncio.gather(*before, *after) == [1, 1, 1]
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    ctask.run(main())
    assert asyncio.run(where()) == "ctask"


def test_install_in_a_loop_leaves_it_the_current_one(put_back):
    async def main():
        ctask.install()

    loop = ctask.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    assert asyncio.get_event_loop() is loop
    asyncio.set_event_loop(None)
    loop.close()


def test_install_while_another_loop_runs_says_what_to_do(put_back, told, monkeypatch):
    async def main():
        with pytest.raises(RuntimeError) as caught:
            ctask.install()
        return str(caught.value)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        message = runner.run(main())
        monkeypatch.setitem(sys.modules, "uvicorn", types.ModuleType("uvicorn"))
        for_uvicorn = runner.run(main())
    assert message.startswith(
        "ctask.install() cannot be called while an event loop is running that is not ctask's "
        "(asyncio.SelectorEventLoop): "
    )
    assert "python -m ctask" in message
    assert for_uvicorn.endswith("start uvicorn with --loop ctask.full:new_event_loop")
    assert not ctask.installed()


def test_install_again_while_another_loop_runs_is_harmless(put_back, told):
    async def main():
        ctask.install()

    ctask.install()
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert LINE.fullmatch(told())


def test_full_installs_and_makes_a_loop(put_back):
    from ctask import full

    assert not ctask.installed()
    loop = full.new_event_loop()
    assert type(loop) is ctask.EventLoop
    loop.close()
    assert ctask.installed()
    assert run_on(full.new_event_loop) == "ctask"


# ---- the children of `python -m ctask` ----

PROGRAM = """\
import asyncio, multiprocessing, os, subprocess, sys
async def main():
    import ctask
    os.write(1, f"{ctask.which()} {ctask.installed()}\\n".encode())  # at once: others write, too
def work():
    asyncio.run(main())
if __name__ == "__main__":
    how = sys.argv[1]
    if how == "again":  # as a reloader does
        sys.exit(subprocess.call([sys.executable, *sys.argv, "once"]))
    if how == "exec":
        os.execv(sys.executable, [sys.executable, sys.argv[0], "once"])
    if "once" in sys.argv:
        sys.exit(work())
    children = [multiprocessing.get_context(how).Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""


@pytest.mark.parametrize(
    ("how", "count"), [("fork", 2), ("spawn", 2), ("forkserver", 2), ("once", 1), ("exec", 1)]
)
def test_children_run_on_ctask(command, tmp_path, how, count):
    (tmp_path / "program.py").write_text(PROGRAM)
    assert command("-W", "ignore", "-m", "ctask", "program.py", how) == (
        0,
        "ctask True\n" * count,
        "",
    )


def test_a_reloaders_child_runs_on_ctask(command, tmp_path):
    source = PROGRAM.replace('if how == "again":', 'if how == "again" and "once" not in sys.argv:')
    (tmp_path / "program.py").write_text(source)
    assert command("-m", "ctask", "program.py", "again") == (0, "ctask True\n", "")


def test_install_alone_is_for_its_own_process(command, tmp_path):
    (tmp_path / "program.py").write_text(
        PROGRAM.replace(
            'if __name__ == "__main__":',
            'if __name__ == "__main__":\n    import ctask; ctask.install()',
        )
    )
    assert command("program.py", "spawn") == (0, "asyncio False\n" * 2, "")


CHILD = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"


def test_a_child_without_asyncio_imports_nothing_of_it(command):
    program = "import sys; print(*sorted({'asyncio', 'ctask', 'importlib'} & {*sys.modules}))"
    status, expected, _ = command("-c", program)
    assert command("-m", "ctask", "-c", CHILD, "-c", program) == (status, expected, "")


def test_a_child_has_the_path_and_the_sitecustomize_it_would_have_had(command, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("print('theirs')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    program = (
        "import sys, sitecustomize; print(sys.path, sitecustomize.__file__); import asyncio; "
        "print(*map(type, sys.meta_path)); print(asyncio.__spec__.loader.__dict__)"
    )
    status, out, err = command("-c", program, PYTHONPATH=path)
    assert (status, err) == (0, "")
    assert out.startswith("theirs\n")
    found = command("-m", "ctask", "-c", CHILD, "-c", program, PYTHONPATH=path)
    assert found == (0, "theirs\n" + out, "")  # the parent's, and the child's


def test_a_child_that_imports_ctask_first(command):
    program = "import ctask, asyncio; print(ctask.installed(), asyncio.Task is ctask.Task)"
    assert command("-m", "ctask", "-c", CHILD, "-c", program) == (0, "True True\n", "")


def test_a_child_that_is_started_with_ctask_itself(command):
    program = "import ctask, os; print(ctask.installed(), os.environ['PYTHONPATH'])"
    status, out, err = command("-m", "ctask", "-c", CHILD, "-m", "ctask", "-c", program)
    assert (status, err) == (0, "")
    assert out.startswith("True ")
    assert out.count("child-site") == 1


def test_a_child_that_cannot_import_ctask_says_so_and_goes_on(command, tmp_path):
    package = tmp_path / "broken" / "ctask"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('broken')\n")
    path = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")]))
    start = (
        "import os, subprocess, sys; "
        "ours, _, rest = os.environ['PYTHONPATH'].partition(os.pathsep); "
        f"os.environ['PYTHONPATH'] = os.pathsep.join([ours, {path!r}]); "
        "sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    )
    status, out, err = command("-m", "ctask", "-c", start, "-c", "import asyncio; print('goes on')")
    assert (status, out) == (0, "goes on\n")
    assert re.fullmatch(r"ctask: process \d+ runs without it: ImportError: broken\n", err)


def test_a_child_with_another_loop_is_told(command):
    program = (
        "import asyncio\nwith asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:\n"
        "    runner.run(asyncio.sleep(0))"
    )
    status, out, err = command("-m", "ctask", "-c", CHILD, "-c", program)
    assert (status, out) == (0, "")
    assert LINE.fullmatch(err)


def test_an_environment_that_asks_for_what_cannot_be_says_so(command):
    program = (
        "import asyncio\n"
        "async def main():\n    import ctask\n    print(ctask.installed())\n"
        "asyncio.run(main())"
    )
    status, out, err = command("-c", program, CTASK_INSTALL="1")
    assert (status, out) == (0, "False\n")
    assert err.startswith("ctask: CTASK_INSTALL: ctask.install() cannot be called while ")
    assert err.count("\n") == 1


# ---- a program of uvloop's, with one word changed ----

WORKERS = """\
import asyncio
import multiprocessing
import os
import sys
import ctask as uvloop

async def main():
    import ctask
    os.write(1, f"{ctask.which()}\\n".encode())  # at once: others write, too

def go(loop: uvloop.Loop) -> None:
    assert isinstance(loop, uvloop.Loop)
    loop.run_until_complete(main())
    loop.close()

def work():
    uvloop.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    loop.close()
    go(uvloop.Loop())
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
    asyncio.set_event_loop_policy(None)
    uvloop.install()
    asyncio.run(main())

if __name__ == "__main__":
    if sys.argv[1] == "1":
        work()
    else:
        workers = [multiprocessing.get_context("spawn").Process(target=work) for _ in "12"]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
"""


@pytest.mark.parametrize(("word", "workers"), [("import", 1), ("import", 2), ("name", 1)])
def test_a_program_of_uvloops_moves_by_one_word(command, tmp_path, word, workers):
    source = WORKERS
    if word == "name":
        source = source.replace("import ctask as uvloop", "import uvloop")
        source = source.replace("uvloop", "ctask")
    (tmp_path / "program.py").write_text(source)
    options = ("-W", "ignore::DeprecationWarning")
    assert command(*options, "program.py", str(workers)) == (0, "ctask\n" * 6 * workers, "")
