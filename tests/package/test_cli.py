"""The command line: `python -m ctask X` does what `python X` does, on ctask.

Most tests run a program both ways and want the same output, errors and exit status, byte for byte.
"""

import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.ctask_only

ADDRESS = re.compile(r"0x[0-9a-f]+")
ON_3_14 = sys.version_info >= (3, 14)


@pytest.fixture
def execute(tmp_path):
    """Runs a command in tmp_path; returns (exit status, stdout, stderr) without addresses."""

    def execute(*command, stdin=b"", env=()):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            timeout=100,
            env={**os.environ, **dict(env)},
        )
        out, err = (ADDRESS.sub("0x", text.decode()) for text in (done.stdout, done.stderr))
        return done.returncode, out, err

    return execute


@pytest.fixture
def python(execute):
    return lambda *args, **kwargs: execute(sys.executable, *args, **kwargs)


@pytest.fixture
def ctask(python):
    return lambda *args, options=(), **kw: python(*options, "-m", "ctask", *args, **kw)


@pytest.fixture
def same(python, ctask):
    """Runs a program both ways, asserts that nothing differs, and returns what it did."""

    def same(*args, options=(), **kwargs):
        expected = python(*options, *args, **kwargs)
        assert ctask(*args, options=options, **kwargs) == expected
        return expected

    return same


@pytest.fixture
def write(tmp_path):
    def write(source, name="prog.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        return name

    return write


# ---- each form of a program, and what it finds ----

SELF_PORTRAIT = """\
import sys
for name, value in [*globals().items()]:
    if name != "sys":
        print(name, value)
print(getattr(__loader__, "name", None), getattr(__loader__, "path", None))
print(sys.argv, sys.path[:2], sys._getframe().f_code.co_filename)
print(sys.modules["__main__"].__dict__ is globals(), type(sys.modules["__main__"]))
"""


@pytest.mark.parametrize("options", [(), ("-P",), ("-E",)])
def test_script(same, write, tmp_path, options):
    write(SELF_PORTRAIT)
    os.symlink("../prog.py", tmp_path / write("", "sub/x").replace("x", "link.py"))
    paths = ["prog.py", "./prog.py", "sub/../prog.py", str(tmp_path / "prog.py"), "sub/link.py"]
    for path in paths:
        assert same(path, "a", "-m", "--debug", options=options)[0] == 0


@pytest.mark.parametrize("options", [(), ("-P",), ("-I",)])
def test_directory_and_zip_file(same, write, tmp_path, options):
    write(SELF_PORTRAIT, "sub/__main__.py")
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr("__main__.py", SELF_PORTRAIT)
    for path in ("sub", "./sub", str(tmp_path / "sub"), "app.zip"):
        assert same(path, "a", "-c", options=options)[0] == 0


def test_current_directory(same, write):
    write(SELF_PORTRAIT, "__main__.py")
    assert same(".")[0] == 0


@pytest.mark.parametrize("options", [(), ("-P",)])
def test_module(same, write, options):
    write(SELF_PORTRAIT, "module.py")
    env = {"PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}
    assert same("-m", "module", "a", "-b", options=options, env=env)[0] == 0
    assert same("-mmodule", options=options, env=env)[0] == 0


def test_package(same, write):
    write("print(__name__)", "package/__init__.py")
    source = "from . import other\nprint(__package__, __spec__.name)\nother.f()"
    write(source, "package/__main__.py")
    write("def f():\n    1 / 0", "package/other.py")
    status, _, err = same("-m", "package")
    assert status == 1
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("options", [(), ("-P",)])
def test_text(same, options):
    assert same("-c", SELF_PORTRAIT, "a", "-m", options=options)[0] == 0
    assert same(f"-c{SELF_PORTRAIT}", options=options)[0] == 0


def test_text_is_dedented_where_python_does_so(same):
    assert same("-c", "\n  print(1)\n  print(2)")[0] == (0 if ON_3_14 else 1)


def test_standard_input(same):
    assert same("-", "a", stdin=SELF_PORTRAIT.encode())[0] == 0


def test_script_reads_standard_input(same, write):
    assert same(write("print(input())"), stdin=b"hello\n")[1] == "hello\n"


def test_compiled_script(same, write, tmp_path):
    write(SELF_PORTRAIT)
    py_compile.compile(str(tmp_path / "prog.py"), str(tmp_path / "prog.pyc"))
    assert same("prog.pyc")[0] == 0


# ---- what a program may do ----

PROGRAMS = {
    "pickles what is in __main__": """
        import pickle, __main__
        class A: pass
        print(type(pickle.loads(pickle.dumps(A()))) is A is __main__.A)
    """,
    "spawns processes that import it": """
        import multiprocessing
        def double(x): return 2 * x
        if __name__ == "__main__":
            for method in "fork", "spawn":
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.map(double, [1, 2]))
    """,
    "has threads and exit functions after it failed": """
        import atexit, threading, time
        class D:
            def __del__(self): print("deleted", name)
        name, d = "d", D()
        atexit.register(lambda: print("exit", __name__, name))
        threading.Thread(target=lambda: print("thread")).start()
        1 / 0
    """,
    "is warned of its own deprecated calls": """
        import warnings
        def f(): warnings.warn("old", DeprecationWarning, stacklevel=2)
        f()
        print("\\d")
    """,
    "has future imports of its own": """
        from __future__ import annotations
        def f(x: nothing): pass
        print(f.__annotations__)
    """,
    "exits with a number": "raise SystemExit(7)",
    "exits with None": "import sys; sys.exit()",
    "exits with a text": "import sys; sys.exit('bye')",
    "exits with another object": "import sys; sys.exit((1, 2))",
    "exits in a coroutine": """
        import asyncio
        async def main(): raise SystemExit(3)
        asyncio.run(main())
    """,
    "raises": "def f():\n    1 / 0\nf()",
    "raises with causes": """
        def f():
            try: {}[1]
            except KeyError as error: raise ValueError("y") from error
        try: f()
        except ValueError: raise RuntimeError("z")
    """,
    "raises in a task group": """
        import asyncio
        async def fail(n): raise ValueError(n)
        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(1))
                group.create_task(fail(2))
        asyncio.run(main())
    """,
    "raises an exception group": "raise ExceptionGroup('g', [ValueError(1), OSError(2)])",
    "raises KeyboardInterrupt": """
        import atexit
        atexit.register(print, "exit")
        def f(): raise KeyboardInterrupt
        f()
    """,
    "raises a subclass of KeyboardInterrupt": "class K(KeyboardInterrupt): pass\nraise K",
    "is interrupted": "import signal; signal.raise_signal(signal.SIGINT)",
    "has a syntax error": "x = 1\nprint((\n",
    "has a syntax error in an import": """
        open("bad.py", "w").write("x = (")
        import bad
    """,
    "is in another encoding": b"# coding: latin-1\nprint(ascii('\xe9'))\n1/0 # \xe9\n",
    "has a byte order mark": b"\xef\xbb\xbfprint(1)\n",
    "has an excepthook": """
        import sys, traceback
        def hook(kind, value, tb):
            print(kind, value, traceback.extract_tb(tb), value.__traceback__ is tb)
            print(sys.excepthook is hook, sys.last_traceback is tb)
        sys.excepthook = hook
        1 / 0
    """,
    "has an excepthook that raises": "import sys; sys.excepthook = lambda *a: 1 / 0; {}[1]",
    "has an excepthook that exits": "import sys; sys.excepthook = lambda *a: sys.exit(9); {}[1]",
    "looks at its traceback at exit": """
        import atexit, sys, traceback
        def look():
            print(traceback.extract_tb(sys.last_traceback), sys.last_value.__traceback__)
            print(sys.excepthook is sys.__excepthook__)
        atexit.register(look)
        1 / 0
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_script_that(same, write, name):
    source = PROGRAMS[name]
    if isinstance(source, str):
        lines = source.splitlines()
        indent = 8 if not lines[0] else 0
        source = "\n".join(line[indent:] for line in lines)
    same(write(source))


@pytest.mark.parametrize("form", ["-c", "-m", "-", "directory"])
@pytest.mark.parametrize("source", ["def f():\n    1 / 0\nf()", "x = 1\nprint((\n"])
def test_error_in(same, write, form, source):
    write(source, "module.py")
    write(source, "sub/__main__.py")
    args = {"-c": ["-c", source], "-m": ["-m", "module"], "-": ["-"], "directory": ["sub"]}[form]
    status, _, err = same(*args, stdin=source.encode())
    assert status == 1
    assert "Error" in err


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["nothing.py"], 2),
        (["sub/nothing"], 2),
        (["unreadable"], 2),
        (["-m", "nothing"], 1),
        (["-m", "nothing.more"], 1),
        (["-m", "json"], 1),
        (["empty"], 1),
        ([""], 1),
    ],
)
def test_program_that_cannot_be_run(same, tmp_path, args, status):
    (tmp_path / "empty").mkdir()
    os.symlink("unreadable", tmp_path / "unreadable")  # not even root can read that
    result = same(*args)
    assert result[:2] == (status, "")
    assert result[2].count("\n") == 1


def test_interrupt_of_a_running_loop(tmp_path, write):
    name = write(
        "import asyncio\n"
        "async def main():\n"
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "ctask", name],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGINT
    assert out == "cleaned up\n"
    assert err.endswith("\nKeyboardInterrupt\n")
    assert "runpy" not in err
    assert "__main__.py" not in err


# ---- that it is ctask which runs ----

WHO = """\
import asyncio, ctask
async def main():
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    print(type(loop) is ctask.EventLoop, type(task) is ctask.Task, loop.get_debug())
asyncio.run(main())
"""


def test_programs_run_on_ctask(ctask, write):
    write(WHO, "who.py")
    write(WHO, "sub/__main__.py")
    for args in (["who.py"], ["-m", "who"], ["-c", WHO], ["-"], ["sub"], ["--", "who.py"]):
        assert ctask(*args, stdin=WHO.encode()) == (0, "True True False\n", "")


@pytest.mark.parametrize("options", [(), ("-E",)])
def test_debug(ctask, options):
    assert ctask("--debug", "-c", WHO, options=options) == (0, "True True True\n", "")


BLOCKS = """\
import asyncio, time
async def main():
    time.sleep(1)
asyncio.run(main())
"""


@pytest.mark.parametrize("form", [("--watch", "0.1"), ("--watch=0.1",), ()])
def test_watch(ctask, form):
    status, out, err = ctask(*form, "-c", BLOCKS, env=() if form else {"CTASK_WATCH": "0.1"})
    assert (status, out) == (0, "")
    assert re.match(r"blocked for \d\.\d+ s: <string>:3 in main", err)
    assert "sleeping (system call" in err
    assert err.count("blocked for") == 1


def test_watch_of_what_does_not_block(ctask):
    assert ctask("--watch", "60", "-c", WHO) == (0, "True True False\n", "")


def test_watch_holds_for_processes_that_are_started(ctask):
    source = "import os; print(os.environ['CTASK_WATCH'])"
    assert ctask("--watch", "60", "-c", source, env={"CTASK_WATCH": "1"}) == (0, "60\n", "")


def test_an_environment_that_makes_no_sense_does_not_keep_the_program_from_running(ctask):
    for text in ("often", "0", "-1", "nan"):
        status, out, err = ctask("-c", WHO, env={"CTASK_WATCH": text})
        assert (status, out) == (0, "True True False\n")
        reason = f"CTASK_WATCH={text!r} is not a number of seconds, like 0.1"
        assert err == f"ctask: nothing is watched: {reason}\n"


def test_unittest_runs_on_ctask(ctask, write):
    write(
        "import asyncio, ctask, unittest\n"
        "class Test(unittest.IsolatedAsyncioTestCase):\n"
        "    async def test(self):\n"
        "        self.assertIs(type(asyncio.current_task()), ctask.Task)\n",
        "test_it.py",
    )
    assert ctask("-m", "unittest", "test_it")[0] == 0


def test_asyncio_repl_runs_on_ctask(ctask):
    status, out, _ = ctask("-m", "asyncio", stdin=b"asyncio.get_running_loop()\n")
    assert (status, "<ctask.EventLoop running=True closed=False debug=False>" in out) == (0, True)


# ---- asyncio.get_event_loop() where no loop runs ----

TOP_LEVEL = """\
import asyncio
loop = asyncio.get_event_loop()
assert loop is asyncio.get_event_loop()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
"""


@pytest.mark.parametrize("options", [(), ("-X", "dev")])
def test_a_loop_that_is_still_current_at_the_end_is_let_go_in_silence(same, options):
    program = """if True:
        import asyncio
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.sleep(0))
    """
    assert same("-c", program, options=options) == (0, "", "")


@pytest.mark.skipif(ON_3_14, reason="python refuses")
@pytest.mark.parametrize("options", [(), ("-W", "error")])
def test_get_event_loop_makes_one_and_warns_as_python_does(same, options):
    same("-c", TOP_LEVEL, options=options)


@pytest.mark.skipif(not ON_3_14, reason="before 3.14 python does so, too")
def test_get_event_loop_makes_one_from_3_14_on(ctask):
    assert ctask("-c", TOP_LEVEL, options=["-W", "error"]) == (0, "", "")


REFUSED = """\
import asyncio, threading
def ask():
    try:
        asyncio.get_event_loop()
    except RuntimeError as error:
        print(error)
thread = threading.Thread(target=ask, name="other")
thread.start()
thread.join()
asyncio.set_event_loop(None)
ask()
"""


def test_get_event_loop_in_another_thread_or_after_none_was_set(ctask):
    message = "There is no current event loop in thread {!r}.\n".format
    assert ctask("-c", REFUSED) == (0, message("other") + message("MainThread"), "")


# ---- options of its own ----


def test_version(ctask):
    import ctask as package

    for option in ("--version", "-V"):
        status, out, err = ctask(option)
        assert (status, err) == (0, "")
        assert out.startswith(f"ctask {package.__version__} ")


def test_help(ctask):
    for option in ("--help", "-h"):
        status, out, err = ctask(option)
        assert (status, err) == (0, "")
        assert out.startswith("usage: python -m ctask ")
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "first"),
    [
        ([], "usage: "),
        (["--debug"], "usage: "),
        (["-c"], "Argument expected for the -c option"),
        (["-m"], "Argument expected for the -m option"),
        (["--wrong", "x.py"], "Unknown option: --wrong"),
        (["--watch"], "Argument expected for the --watch option"),
        (["--watch", "x.py"], "--watch takes a number of seconds, like 0.1, not 'x.py'"),
        (["--watch=0", "x.py"], "--watch takes a number of seconds, like 0.1, not '0'"),
        (["--watched", "x.py"], "Unknown option: --watched"),
        (["--wach", "1", "x.py"], "Unknown option: --wach. Did you mean --watch?\n"),
        (["--debgu", "x.py"], "Unknown option: --debgu. Did you mean --debug?\n"),
        *(
            (
                [option, "x.py"],
                f"Unknown option: {option}; Python's own options come before -m: "
                f"python {option} ... -m ctask ...\n",
            )
            for option in ("-X", "-W", "-Wignore", "-u", "-O", "-I", "-Xdev")
        ),
    ],
)
def test_wrong_usage(ctask, args, first):
    status, out, err = ctask(*args)
    assert (status, out) == (2, "")
    assert err.startswith(first)
    assert "\nusage: " in "\n" + err


def test_console_script(execute, python, write):
    program = shutil.which("ctask", path=os.path.dirname(sys.executable))
    if program is None:
        pytest.skip("not installed beside this python")
    name = write(SELF_PORTRAIT + "1 / 0")
    assert execute(program, name, "a") == python(name, "a")
    assert execute(program, "--help")[1].startswith("usage: ctask ")
