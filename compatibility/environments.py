"""Virtual environments: one for each library, with what its tests need and with ctask."""

import shutil
from pathlib import Path

from compatibility.libraries import Library
from compatibility.sources import CannotRun, call

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent  # the checkout
PINS = HERE / "pins.txt"
STAMP = "compatibility.txt"  # in an environment: what it was made of


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def build_wheel(python: Path, what: Path, work: Path) -> Path:
    """ctask as a wheel: what was given, or built from a copy of that tree."""
    if what.is_file():
        return what.resolve()
    if not (what / "tools" / "copy-tree").is_file():
        raise CannotRun(f"neither a wheel nor a tree of ctask's: {what}")
    wheels = work / "wheel"
    tree = work / "ctask"
    for directory in (wheels, tree):
        shutil.rmtree(directory, ignore_errors=True)
    call(what / "tools" / "copy-tree", tree)
    call(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, tree)
    (wheel,) = wheels.iterdir()
    return wheel


def recipe(python: Path, library: Library) -> str:
    return "\n".join([str(python), library.requirement, *library.needs, PINS.read_text()])


def make(python: Path, library: Library, directory: Path) -> None:
    """A fresh environment, or the one that is there if it was made of the same."""
    stamp = directory / STAMP
    wanted = recipe(python, library)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(directory, ignore_errors=True)
    call(python, "-m", "venv", directory)
    pip = ("-m", "pip", "install", "--quiet", "--constraint", PINS)
    call(python_of(directory), *pip, library.requirement, *library.needs)
    stamp.write_text(wanted)


def add_ctask(directory: Path, wheel: Path) -> None:
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall")
    call(python_of(directory), *pip, wheel)
    (packages,) = directory.glob("lib/python3*/site-packages")
    for name in ("side", "recorder"):
        shutil.copy(HERE / "inside" / f"{name}.py", packages / f"compatibility_{name}.py")
    (packages / "compatibility_side.pth").write_text("import compatibility_side\n")
