"""Builds ctask._ctask; everything else about the package is in pyproject.toml.

CTASK_PGO=1        optimise for what a run of the benchmarks did: compiles twice (gcc, clang)
CTASK_OLD_GLIBC=1  ask for old versions of glibc's functions (tools/wheels)
CTASK_WERROR=1     warnings are errors (CI)
CTASK_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer (tools/sanitize);
                   "thread": ThreadSanitizer (tools/tsan)

What Python was compiled with often asks for debug information, four times as much as all the rest.
It is left out unless CFLAGS has a -g of one's own.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MARKER = (
    'ctask; sys_platform == "linux" and platform_python_implementation == "CPython" '
    'and python_version >= "3.11" and python_version < "3.16"'
)


def refuse_others() -> None:
    """End with one line where ctask cannot be built, before anything is tried."""
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(
        sys.implementation.name, sys.implementation.name
    )
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    if (
        sys.platform != "linux"
        or name != "CPython"
        or not (3, 11) <= sys.version_info[:2] < (3, 16)
        or free_threaded
    ):
        version = ".".join(map(str, sys.version_info[:2])) + (
            " free-threaded" if free_threaded else ""
        )
        raise SystemExit(
            "ctask is for CPython 3.11 to 3.15 with the GIL, on Linux, and this is "
            f"{name} {version} on {sys.platform}; to have it where it runs, depend on: {MARKER}"
        )


refuse_others()


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


compile_args = [
    "-std=gnu11",
    "-O3",
    # Calls into the interpreter go straight through the GOT: 1 % fewer instructions.
    "-fno-plt",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
link_args: list[str] = []

if flag("CTASK_OLD_GLIBC"):
    compile_args.append("-DCTASK_OLD_GLIBC")
    # Where dlopen() was. The interpreter may be linked without it.
    link_args += ["-Wl,--no-as-needed", "-l:libdl.so.2"]
if flag("CTASK_SANITIZE"):
    if os.environ["CTASK_SANITIZE"] == "thread":
        sanitize, trap = ["-fsanitize=thread"], []
    else:
        # Undefined behaviour traps, and is reported by AddressSanitizer: with a second run-time
        # library neither knows where the report should go.
        sanitize = ["-fsanitize=address,undefined"]
        trap = ["-fsanitize-undefined-trap-on-error"]
    # -UNDEBUG: the assertions are worth most here.
    compile_args += ["-O1", "-g", "-UNDEBUG", *sanitize, "-fno-omit-frame-pointer", *trap]
    link_args += sanitize
elif not any(word.startswith("-g") for word in os.environ.get("CFLAGS", "").split()):
    link_args.append("-Wl,--strip-debug")
if flag("CTASK_WERROR"):
    compile_args.append("-Werror")


def told(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class GccProfile:
    """gcc counts into a file beside the object file, and looks for it there."""

    # Atomic: the core's scenarios have a thread, too.
    generate = ("-fprofile-generate", "-fprofile-update=atomic")
    # Partial: what the training does not reach is compiled as ever, not for size.  Inlining where
    # it is known to be worth it: twice the usual limit takes 0.7 % off, and adds 0.4 % of size.
    use = (
        "-fprofile-use",
        "-fprofile-partial-training",
        "--param=max-inline-insns-auto=60",
    )

    def __init__(self, compiler: list[str], folder: Path) -> None:
        self.folder = folder

    def environment(self) -> dict[str, str]:
        for old in self.folder.rglob("*.gcda"):
            old.unlink()  # a run adds to what is there
        return {}

    def finish(self) -> None:
        if not list(self.folder.rglob("*.gcda")):
            raise SystemExit("CTASK_PGO: the training run has left no profile")


class ClangProfile:
    """clang's raw counts are made into a profile by llvm-profdata of the same version."""

    generate = ("-fprofile-instr-generate", "-fprofile-update=atomic")

    def __init__(self, compiler: list[str], folder: Path) -> None:
        self.raw, self.merged = folder / "ctask.profraw", folder / "ctask.profdata"
        self.use = (f"-fprofile-instr-use={self.merged}",)
        self.profdata = told(*compiler, "-print-prog-name=llvm-profdata")

    def environment(self) -> dict[str, str]:
        self.raw.unlink(missing_ok=True)
        return {"LLVM_PROFILE_FILE": str(self.raw)}

    def finish(self) -> None:
        told(self.profdata, "merge", "-o", str(self.merged), str(self.raw))


def profile_for(compiler: list[str], folder: Path) -> GccProfile | ClangProfile:
    kind = ClangProfile if "clang" in told(*compiler, "--version") else GccProfile
    return kind(compiler, folder)


class Build(build_ext):
    """With CTASK_PGO: compile with counters, train, compile again with what was counted."""

    def build_extension(self, ext: Extension) -> None:
        if flag("CTASK_PGO") and not flag("CTASK_SANITIZE"):
            folder = Path(self.build_temp).resolve()
            profile = profile_for(self.compiler.compiler_so, folder)
            flags, linking = ext.extra_compile_args, ext.extra_link_args
            ext.extra_compile_args = [*flags, *profile.generate]
            ext.extra_link_args = [*linking, *profile.generate]
            self.force = True  # the object file is there already the second time
            self.train(ext, folder / "train", profile.environment())
            profile.finish()
            ext.extra_compile_args = [*flags, *profile.use]
            ext.extra_link_args = linking
        super().build_extension(ext)

    def train(self, ext: Extension, folder: Path, environment: dict[str, str]) -> None:
        """Run benchmarks/train.py on a package in `folder`, with this extension in it."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "ctask", folder / "ctask", ignore=shutil.ignore_patterns("*.so"))
        place = self.build_lib, self.inplace, self.editable_mode
        self.build_lib, self.inplace, self.editable_mode = str(folder), False, False
        super().build_extension(ext)
        self.build_lib, self.inplace, self.editable_mode = place
        environment |= {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONHASHSEED": "0"}
        # -P: not the package in the current directory.
        command = [sys.executable, "-P", "-m", "benchmarks.train"]
        print("training:", *command, flush=True)
        subprocess.run(command, check=True, env=os.environ | environment)


setup(
    cmdclass={"build_ext": Build},
    ext_modules=[
        Extension(
            "ctask._ctask",
            sources=["ctask.c"],
            depends=sorted(glob.glob("src/**/*.[ch]", recursive=True)),
            include_dirs=["src"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ],
)
