"""The command line: runs a Python program as `python` would, with ctask installed.

The program gets a `__main__`, an argv and a path of its own, so that nothing of ctask is in its
way; what it does not catch is shown without the frames that it was started from.
"""

import builtins
import os
import pkgutil
import re
import runpy
import sys
from collections.abc import Callable
from importlib import machinery
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

import ctask
from ctask import _install

HELP = """\
usage: {program} [OPTION ...] (SCRIPT | -m MODULE | -c CODE | -) [ARG ...]
       {program} (ps | pstree | stacks | top) [--json] [--tasks N] PID
       {program} trace [--seconds N] [--output FILE] PID

Run a Python program as `python` would, with the tasks, futures and event loop
of asyncio in C.

  SCRIPT         a file, or a directory or zip file with a __main__.py
  -m MODULE      a module or package
  -c CODE        a program given as text
  -              a program read from standard input

  ps PID         the tasks of a running program as a table
  pstree PID     who waits for whom, as a tree
  stacks PID     where each task waits, as tracebacks
  top PID        what its loops do, every second
  trace PID      what its loops do in the next 5 seconds, as a timeline
                 (a script of such a name is ./ps)

  --debug        asyncio's debug mode, as with PYTHONASYNCIODEBUG=1
  --watch SECONDS
                 report what keeps an event loop for longer, with its stack, to
                 the logger ctask.watch; as with CTASK_WATCH=SECONDS
  --trace FILE   write down what the event loops do: FILE.html draws a timeline,
                 any other is for Perfetto and Chrome
  -V, --version  print the version and exit
  -h, --help     print this and exit
"""


_COMMANDS = ("ps", "pstree", "stacks", "top", "trace")  # of ctask/observe/commands.py


def main() -> None:
    """Run what the command line names: the entry point of `python -m ctask` and of `ctask`."""
    if sys.argv[1:2] and sys.argv[1] in _COMMANDS:
        from ctask.observe import commands

        sys.exit(commands.run(sys.argv[1], sys.argv[2:]))
    run, what = _parse(sys.argv[1:])
    _install.install_with(_install.CommandPolicy)
    _install.inherit()
    try:
        run(what)
        _end_trace()
    except SystemExit as end:
        _end_trace(end.code in (None, 0))
        raise
    except BaseException:
        _end_trace(False)
        # The interpreter reports it, sets the exit status and, after a KeyboardInterrupt, dies of
        # the signal.  All that remains to do is to hide where the exception came through.
        sys.excepthook = _without_our_frames(sys.excepthook)
        raise


# ---- arguments ----


def _parse(args: list[str]) -> tuple[Callable[[str], None], str]:
    """Return what runs the program, and its argument; leave the program's own in sys.argv."""
    while args and args[0].startswith("-") and args[0] != "-":
        option = args.pop(0)
        if option.startswith(("-m", "-c")):
            what = option[2:] or (args.pop(0) if args else None)
            if what is None:
                _refuse(f"Argument expected for the {option} option")
            sys.argv[:] = [option[:2], *args]
            return (_run_module if option.startswith("-m") else _run_text), what
        match option:
            case "--debug":
                _set_debug()
            case "--watch":
                _set_watch(args.pop(0) if args else None)
            case "--trace":
                _set_trace(args.pop(0) if args else None)
            case "--":
                break
            case "-h" | "--help":
                print(_help(), end="")
                sys.exit()
            case "-V" | "--version":
                print(f"ctask {ctask.__version__} on Python {sys.version.partition(' ')[0]}")
                sys.exit()
            case _ if option.startswith("--watch="):
                _set_watch(option.partition("=")[2])
            case _ if option.startswith("--trace="):
                _set_trace(option.partition("=")[2])
            case _:
                _refuse(f"Unknown option: {option}{_hint(option)}")
    if not args:
        _refuse()
    sys.argv[:] = args
    return (_run_stdin if args[0] == "-" else _run_path), args[0]


def _hint(option: str) -> str:
    if re.fullmatch("-[bBdEiIOPqRsSuvWxX].*", option):
        return f"; Python's own options come before -m: python {option} ... -m ctask ..."
    from difflib import get_close_matches

    known = re.findall(r"^  (?:-\w, )?(--[a-z]+)", HELP, re.MULTILINE)
    return "".join(f". Did you mean {name}?" for name in get_close_matches(option, known, 1))


def _help() -> str:
    as_module = os.path.basename(sys.argv[0]) == "__main__.py"
    return HELP.format(program="python -m ctask" if as_module else "ctask")


def _refuse(message: str = "") -> NoReturn:
    usage = _help().partition("\n")[0]
    print(*filter(None, [message, usage, "Try --help for more."]), sep="\n", file=sys.stderr)
    sys.exit(2)


def _set_debug() -> None:
    os.environ["PYTHONASYNCIODEBUG"] = "1"
    if sys.flags.ignore_environment:
        from asyncio import coroutines

        coroutines._is_debug_mode = lambda: True  # type: ignore[attr-defined]


def _set_watch(seconds: str | None) -> None:
    from ctask.observe.watch import watch_process

    if seconds is None:
        _refuse("Argument expected for the --watch option")
    try:
        watch_process(seconds)
    except ValueError:
        _refuse(f"--watch takes a number of seconds, like 0.1, not {seconds!r}")
    os.environ["CTASK_WATCH"] = seconds  # for the processes that the program starts


def _set_trace(path: str | None) -> None:
    global _trace
    from ctask.observe.trace import cannot_write, trace

    if not path:
        _refuse("Argument expected for the --trace option")
    if _trace is not None:
        _refuse("--trace is given twice")
    try:
        _trace = trace(path)
    except OSError as error:
        print(f"ctask: {cannot_write(path, error)}", file=sys.stderr)
        sys.exit(1)


_trace: Any = None  # of --trace


def _end_trace(succeeded: bool = True) -> None:
    """Write it; a failure is the exit status of a program that has none of its own."""
    if _trace is not None and not _trace.stop_and_say() and succeeded:
        sys.exit(1)


# ---- the forms of a program ----


def _run_path(path: str) -> None:
    # What python writes into __file__: absolute, but not normalised.
    file = os.getcwd() if path in ("", ".") else os.path.join(os.getcwd(), path)
    if pkgutil.get_importer(file) is not None:
        if sys.flags.safe_path:
            sys.path.insert(0, file)  # -P is about the directory of a script, not about this
        _run_as_main("__main__", path0=file, set_argv0=False)
        return
    try:
        with open(file, "rb") as stream:
            source = stream.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.orig_argv[0]}: can't open file {file!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    path0 = os.path.dirname(os.path.realpath(path))
    loader: machinery.SourceFileLoader | machinery.SourcelessFileLoader
    if path.endswith(".pyc"):
        loader = machinery.SourcelessFileLoader("__main__", file)
        code = loader.get_code("__main__")
        assert code is not None
    else:
        loader = machinery.SourceFileLoader("__main__", file)
        code = _compile(source, file)
    _execute(code, path0, loader, file)


def _run_stdin(_: str) -> None:
    file = "<stdin>"
    _execute(_compile(sys.stdin.buffer.read(), file), "", file=file)


def _run_text(text: str) -> None:
    if sys.version_info >= (3, 14):
        import textwrap

        text = textwrap.dedent(text)
    code = _compile(text + "\n", "<string>")
    if sys.version_info >= (3, 13):
        import linecache

        # Has tracebacks show the lines; releases differ in what the lines are stored by.
        key = code if hasattr(linecache, "_interactive_cache") else "<string>"
        linecache._register_code(key, text, "<string>")  # type: ignore[attr-defined]
    _execute(code, "")


def _run_module(name: str) -> None:
    _run_as_main(name, path0=os.getcwd(), set_argv0=True)


# ---- running ----


def _compile(source: bytes | str, file: str) -> CodeType:
    options: dict[str, Any] = {"module": "__main__"} if sys.version_info >= (3, 15) else {}
    code: CodeType = compile(source, file, "exec", dont_inherit=True, **options)
    return code


def _execute(
    code: CodeType, path0: str, loader: Any = machinery.BuiltinImporter, file: str = ""
) -> None:
    names = _prepare(path0, loader)
    if file:
        names["__file__"] = file
        if sys.version_info < (3, 15):
            names["__cached__"] = None
    exec(code, names)


def _run_as_main(name: str, *, path0: str, set_argv0: bool) -> None:
    _prepare(path0, None)
    # The very function that the interpreter calls for -m, and for a directory or zip file.
    runpy._run_module_as_main(name, set_argv0)  # type: ignore[attr-defined]


def _prepare(path0: str, loader: Any) -> dict[str, Any]:
    """Give the program its place on sys.path and a new __main__; return the names of that."""
    if not sys.flags.safe_path:
        sys.path[0] = path0
    module = ModuleType("__main__")
    module.__loader__ = loader
    names = module.__dict__
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return names


# ---- reporting ----

_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


def _without_our_frames(hook: _Hook) -> _Hook:
    """A sys.excepthook that shows `hook` nothing of ctask, and then is no more."""

    def report(kind: type[BaseException], value: BaseException, tb: TracebackType | None) -> None:
        sys.excepthook = hook
        sys.last_traceback = value.__traceback__ = tb = _program_part(tb)
        try:
            hook(kind, value, tb)
        except SystemExit:
            raise
        except BaseException as error:
            # As the interpreter has it; it would show this function's frame, too.
            assert error.__traceback__ is not None
            error.__traceback__ = error.__traceback__.tb_next
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(error), error, error.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(kind, value, tb)

    return report


def _program_part(tb: TracebackType | None) -> TracebackType | None:
    def is_ours(tb: TracebackType) -> bool:
        return tb.tb_frame.f_globals is globals()

    while tb is not None and not is_ours(tb):
        tb = tb.tb_next
    while tb is not None and is_ours(tb):
        tb = tb.tb_next
    return tb


if __name__ == "__main__":
    main()
