"""What ctask says where something is not as it should be: names, builds, places."""

import re
import sys
from pathlib import Path

import pytest

import ctask

pytestmark = pytest.mark.ctask_only


def test_run_in_a_loop_speaks_of_ctask():
    async def nothing():
        pass

    async def main():
        coro = nothing()
        with pytest.raises(RuntimeError, match=r"^ctask\.run\(\) cannot be called from a running"):
            ctask.run(coro)
        coro.close()

    ctask.run(main())


def test_a_misspelt_name_gets_did_you_mean(command):
    status, _, err = command("-c", "import ctask; ctask.new_evnt_loop")
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("AttributeError: module 'ctask' has no attribute 'new_evnt_loop'")
    assert "Did you mean" in last
    assert "new_event_loop" in last


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python looks for names from 3.12 on")
def test_a_misspelt_import_gets_did_you_mean(command):
    _, _, err = command("-c", "from ctask import new_evnt_loop")
    assert "Did you mean: 'new_event_loop'" in err


def test_an_uncompiled_checkout_says_pip_install(command, tmp_path):
    package = tmp_path / "checkout" / "ctask"
    package.mkdir(parents=True)
    for file in Path(ctask.__file__).parent.glob("*.py"):
        (package / file.name).write_bytes(file.read_bytes())
    status, _, err = command("-S", "-c", "import ctask", PYTHONPATH=str(package.parent))
    last = err.splitlines()[-1]
    assert status == 1
    assert last.startswith("ImportError: ctask._ctask is not compiled for Python ")
    assert last.endswith(f"-m pip install .` in {package.parent}")


def test_a_layout_that_does_not_fit_says_what_it_was_built_for(command):
    program = (
        "import _asyncio\n"
        "class Future(_asyncio.Future):\n    __slots__ = ('more',)\n"
        "_asyncio.Future = Future\n"
        "import ctask"
    )
    status, _, err = command("-c", program)
    last = err.splitlines()[-1]
    release = ".".join(map(str, sys.version_info[:3]))
    assert status == 1
    assert re.match(r"ImportError: ctask was built for Python 3\.\d+\.\d+", last)
    assert f"of this one, {release}, has other fields: build it anew, by pip install " in last


# ---- setup.py where ctask cannot be built ----

ELSEWHERE = {
    "macOS": "sys.platform = 'darwin'",
    "Windows": "sys.platform = 'win32'",
    "PyPy": "sys.implementation.name = 'pypy'",
    "3.10": "sys.version_info = (3, 10, 4, 'final', 0)",
    "3.16": "sys.version_info = (3, 16, 0, 'alpha', 1)",
    "free-threaded": "sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1",
}
MARKER = (
    'ctask; sys_platform == "linux" and platform_python_implementation == "CPython" '
    'and python_version >= "3.11" and python_version < "3.16"'
)


@pytest.mark.parametrize("place", [*ELSEWHERE])
def test_setup_stops_where_ctask_cannot_be_built(command, place):
    setup = Path(__file__).parents[2] / "setup.py"
    if not setup.exists():
        pytest.skip("not in a checkout")
    # What setup.py needs of other packages is of no account before it has looked where it is.
    program = (
        "import sys, sysconfig, types, glob, shutil, subprocess, pathlib\n"
        "sysconfig.get_config_vars()\n"
        "for name in 'setuptools', 'setuptools.command', 'setuptools.command.build_ext':\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    module.Extension = module.setup = module.build_ext = object\n"
        f"{ELSEWHERE[place]}\n"
        f"file = {str(setup)!r}\n"
        "exec(compile(pathlib.Path(file).read_text(), 'setup.py', 'exec'), {'__file__': file})"
    )
    status, out, err = command("-c", program)
    assert (status, out) == (1, "")
    assert err.startswith("ctask is for CPython 3.11 to 3.15 with the GIL, on Linux, and this is ")
    assert err.endswith(f"; to have it where it runs, depend on: {MARKER}\n")
    assert err.count("\n") == 1
