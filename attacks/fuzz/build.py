"""What is fuzzed: the extension made by clang, with counters and sanitizers; and libFuzzer.

Each is made once, into build/attacks/fuzz/, under a digest of what it is made of.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from .._interpreter import ROOT

HERE = Path(__file__).parent
BUILT = ROOT / "build" / "attacks" / "fuzz"
# Undefined behaviour traps, which libFuzzer tells of, too. Both this and -O0 are for the time that
# it takes to compile, a quarter of that with -O1: most of a case's time is the interpreter's.
FLAGS = ["-std=gnu11", "-O0", "-gline-tables-only", "-UNDEBUG", "-fPIC", "-shared"]
FLAGS += ["-fvisibility=hidden", "-fsanitize=fuzzer-no-link,address,undefined"]
FLAGS += ["-fsanitize-undefined-trap-on-error"]


class NotBuilt(Exception):
    """It cannot be made here; the message says why."""


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def clang(*arguments: str) -> str:
    try:
        done = subprocess.run(["clang", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise NotBuilt(f"clang: {error.strerror}") from None
    if done.returncode:
        raise NotBuilt(f"clang: {(done.stderr.splitlines() or ['failed'])[0]}")
    return done.stdout.strip()


def runtime(name: str) -> str:
    """A library of clang's own."""
    kind = "a" if name == "fuzzer_no_main" else "so"
    path = clang(f"-print-file-name=libclang_rt.{name}-{os.uname().machine}.{kind}")
    if not os.path.isabs(path):
        raise NotBuilt(f"clang has no {path}")
    return path


def driver() -> Path:
    """libFuzzer without a main(), and wire.c."""
    source = HERE / "wire.c"
    path = BUILT / f"driver-{digest(source.read_bytes())}.so"
    if not path.exists():
        whole = ["-Wl,--whole-archive", runtime("fuzzer_no_main"), "-Wl,--no-whole-archive"]
        flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        make(path, *flags, str(source), *whole, "-lstdc++", "-lm", "-lpthread", "-ldl")
    return path


def make(path: Path, *arguments: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{os.getpid()}-{path.name}")
    clang(*arguments, "-o", str(temporary))
    os.replace(temporary, path)


def extension(source: Path) -> Path:
    """A folder with the package: the Python files of `source`, and its extension."""
    files = [source / "ctask.c", *sorted(source.glob("src/**/*.[ch]"))]
    python = source / "ctask"
    if not python.exists():  # a copy beside what is installed
        spec = importlib.util.find_spec("ctask")
        python = Path(spec.origin).parent if spec and spec.origin else python
    texts = sorted(python.glob("*.py"))
    if not files[0].exists() or not texts:
        raise NotBuilt(f"{source} has no source of ctask")
    include = [sysconfig.get_path(name) for name in ("include", "platinclude")]
    made_of = [file.read_bytes() for file in (*files, *texts)]
    folder = BUILT / f"package-{digest(*map(str.encode, FLAGS + include), *made_of)}"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = folder / "ctask" / f"_ctask{suffix}"
    if not target.exists():
        includes = [f"-I{path}" for path in (*include, source / "src")]
        make(target, *FLAGS, *includes, str(files[0]))
    for text in texts:
        shutil.copy(text, target.parent)
    return folder


SCRIPT = """\
#!/bin/sh
# libFuzzer on the target {name}, with its options.
export FUZZ_PROGRAM="$0" PYTHONPATH={package} PYTHONSAFEPATH=1 PYTHONMALLOC=malloc PYTHONHASHSEED=0
export PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:allocator_may_return_null=1
export LD_PRELOAD={driver}:{asan} FUZZ_PRELOAD={asan}
start="import sys; sys.path.append('{root}'); from attacks.fuzz.child import main; sys.exit(main())"
exec {python} -c "$start" {name} "$@"
"""


def program(name: str, source: Path, python: str) -> Path:
    """A program that is libFuzzer on this target."""
    package, library = extension(source), driver()
    path = package / name
    text = SCRIPT.format(
        name=name,
        package=package,
        driver=library,
        asan=runtime("asan"),
        python=python,
        root=ROOT,
    )
    temporary = package / f"{os.getpid()}-{name}"
    temporary.write_text(text)
    temporary.chmod(0o755)
    os.replace(temporary, path)
    return path
