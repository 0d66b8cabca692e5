"""What a Python program does first that was started by one under `python -m ctask`.

This directory is first in PYTHONPATH there (inherit() in ctask/_install.py).  It leaves the path,
runs the sitecustomize that it was in front of, and has ctask imported as soon as asyncio is: that
installs itself (CTASK_INSTALL).  A program without asyncio imports nothing more than this, and
neither does another Python, which may read this file as well.
"""

# mypy: ignore-errors
# No annotations, as old versions of Python may read this.

import os
import sys


def _step_aside():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    sys.path_importer_cache.pop(here, None)
    ours = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ImportError as error:
        if getattr(error, "name", __name__) != __name__:
            raise  # site reports it
    finally:
        sys.modules.setdefault(__name__, ours)


class _AfterAsyncio:
    """A finder that finds nothing by itself: asyncio's module gets more to do at its end."""

    def find_spec(self, name, path=None, target=None):
        if name != "asyncio":
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next(filter(None, found), None)
        if spec is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def execute_and_install(module):
                del loader.exec_module  # the class's again
                execute(module)
                _install()

            loader.exec_module = execute_and_install
        return spec


def _install():
    try:
        __import__("ctask")
    except ModuleNotFoundError as error:
        if error.name != "ctask":  # else a Python that does not have it
            _tell(error)
    except Exception as error:
        _tell(error)


def _tell(error):
    line = f"ctask: process {os.getpid()} runs without it: {type(error).__name__}: {error}"
    if sys.stderr is not None:
        print(line, file=sys.stderr)


if __name__ == "sitecustomize":  # not for who only looks at the package's files
    _step_aside()
    if (
        sys.version_info >= (3, 11)
        and sys.implementation.name == "cpython"
        and os.environ.get("CTASK_INSTALL", "0") not in ("", "0")
    ):
        sys.meta_path.insert(0, _AfterAsyncio())
