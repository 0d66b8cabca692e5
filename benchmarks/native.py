"""The C programs of the benchmarks, compiled when first used, into build/benchmarks/."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

from .paths import ROOT

SOURCES = Path(__file__).parent / "c"
BUILT = ROOT / "build" / "benchmarks"
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]


class NotBuilt(Exception):
    """A program cannot be compiled here; the message says why."""


def compiled(
    source: str | Path,
    *flags: str,
    libraries: tuple[str, ...] = (),
    suffix: str = "",
    folder: Path = BUILT,
) -> Path:
    """Return the program made from c/SOURCE, or from a file elsewhere. Raises NotBuilt.

    Its name has a digest of the source and the flags in it, so that an old one is never run. What
    is there is taken, also where the headers for it are missing.
    """
    path = SOURCES / source
    told = [*FLAGS, *libraries, *flags]
    digest = hashlib.sha256(path.read_bytes() + "\0".join(told).encode()).hexdigest()[:12]
    target = folder / f"{path.stem}-{digest}{suffix}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{os.getpid()}-{target.name}"
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *flags]
    command += ["-o", str(temporary), str(path), *libraries]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise NotBuilt(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise NotBuilt(f"{path.name} does not compile: {errors[0].strip()}")
    os.replace(temporary, target)
    return target


def program(source: str, *, tls: bool = False) -> Path:
    """Return the compiled client.c, echo_epoll.c or spawn.c. Raises NotBuilt."""
    if tls:
        return compiled(source, "-DUSE_TLS", libraries=("-lssl", "-lcrypto"))
    return compiled(source)


def extension(name: str) -> ModuleType:
    """Compile and import the extension module echo_protocol or floor. Raises NotBuilt."""
    path = compiled(
        f"{name}.c",
        "-shared",
        "-fPIC",
        f"-I{sysconfig.get_path('include')}",
        f"-I{sysconfig.get_path('platinclude')}",
        suffix=sysconfig.get_config_var("EXT_SUFFIX"),
    )
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def certificate() -> Path:
    """A self-signed certificate with its key (P-256) for localhost, made once."""
    target = BUILT / "localhost.pem"
    if not target.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        temporary = BUILT / f"{os.getpid()}-{target.name}"
        command = "openssl req -x509 -nodes -days 3650 -subj /CN=localhost"
        command += " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        try:
            done = subprocess.run(
                [*command.split(), "-keyout", str(temporary), "-out", f"{temporary}.crt"],
                capture_output=True,
                text=True,
            )
        except OSError as error:
            raise NotBuilt(f"openssl: {error.strerror}") from None
        if done.returncode:
            raise NotBuilt(f"openssl: {done.stderr.strip()}")
        with temporary.open("a") as file:
            file.write(Path(f"{temporary}.crt").read_text())
        os.unlink(f"{temporary}.crt")
        os.replace(temporary, target)
    return target
