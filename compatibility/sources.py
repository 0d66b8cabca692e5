"""Gets a library's source release and unpacks it.

From the package index with pip; from Debian with apt-get, which verifies signatures, where the
index's release has no tests.  What was downloaded is kept.  Nothing is built.
"""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from compatibility.libraries import Library

APT_SOURCE = (
    "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} trixie main\n"
)


class CannotRun(Exception):
    """The run itself could not be done."""


def call(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise CannotRun(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")


def normalized(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def archive_of(names: list[str], name: str, version: str) -> str | None:
    """The one of these file names that is this release's."""
    for candidate in names:
        stem = candidate.removesuffix(".tar.gz")
        if stem != candidate and normalized(stem) == normalized(f"{name}-{version}"):
            return candidate
    return None


def from_index(library: Library, python: Path, directory: Path) -> Path:
    def found() -> str | None:
        names = [path.name for path in directory.iterdir()]
        return archive_of(names, library.name, library.version)

    if not found():
        # Only this one as source: pip builds its metadata, with tools that may be wheels.
        pip = ("-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", library.name)
        call(python, *pip, "--dest", directory, f"{library.name}=={library.version}")
    name = found()
    if name is None:
        raise CannotRun(f"no source release of {library.name} {library.version}")
    return directory / name


def debians_mirror() -> str:
    """The one that the system's own packages come from."""
    command = ["apt-get", "--print-uris", "update"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    found = re.search(r"^'(\S+/debian)/dists/", told, re.MULTILINE)
    if found is None:
        raise CannotRun("apt knows no mirror of Debian")
    return found[1]


def from_debian(package: str, version: str, directory: Path) -> Path:
    """The original source, in a directory of apt's own: the system's lists stay as they are."""
    upstream = version.rpartition("-")[0]
    names = [f"{package}_{upstream}.orig.tar.{suffix}" for suffix in ("gz", "xz", "bz2")]
    for name in names:
        if (directory / name).exists():
            return directory / name
    state = directory / "apt"
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(APT_SOURCE.format(mirror=debians_mirror()))
    options = {
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "--quiet"]
    for key, value in options.items():
        apt += ["-o", f"{key}={value}"]
    call(*apt, "update")
    # Beside it first: what comes half must not be taken for the whole.
    call(*apt, "source", "--tar-only", f"{package}={version}", cwd=state)
    for name in names:
        if (state / name).exists():
            return Path(shutil.move(state / name, directory / name))
    raise CannotRun(f"Debian's {package} {version} has none of {names}")


def unpack(archive: Path, directory: Path) -> None:
    """The archive's one top directory becomes this directory, anew."""
    shutil.rmtree(directory, ignore_errors=True)
    beside = directory.with_name(directory.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(beside, filter="data")
    tops = list(beside.iterdir())
    if len(tops) != 1:
        raise CannotRun(f"{archive.name} has not one top directory")
    tops[0].rename(directory)
    beside.rmdir()


def fetch(library: Library, python: Path, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if library.debian:
        return from_debian(*library.debian, directory)
    return from_index(library, python, directory)
