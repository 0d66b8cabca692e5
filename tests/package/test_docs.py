"""README.md and the pages of docs/: every program is run, every command is run or looked at.

How a block is dealt with:

  ```python          run, in a process of its own and from an empty folder; `asyncio`, `ctask` and
                     `unittest` are imported already. With "`name.py`:" above it is a file, which
                     one of the page's commands has to run.
  ```sh              each line is run, with the page's files there; of `pip install` the extras are
                     looked at
  ```text, ```json   listings: not run
  indented           a command is looked at: what it starts is there. A piece of Python compiles,
                     and what it takes from ctask is there.

<!-- not run here: REASON --> above a block has it looked at, not run. frameworks.md and scaling.md
need the frameworks: tests/integration runs them.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

import ctask

pytestmark = pytest.mark.ctask_only

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests" / "helpers" / "snippets.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN_BY_INTEGRATION = ("frameworks.md", "scaling.md")
# Whose programs may be pieces, which take names from what is around them: then they are looked at.
WITH_PIECES = ("observability.md",)
PAGES = {
    path.name: path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if path.name not in RUN_BY_INTEGRATION
}
LISTINGS = ("text", "json")
LIBRARIES = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry"}  # of extras
SERVES = re.compile(r"sleep\(3600\)|serve_forever\(\)|Event\(\)\.wait\(\)")
FENCE = re.compile(
    r"(?:^`(?P<name>[\w.]+)`:\n\n)?(?:^<!-- not run here: (?P<why>[^\n]+) -->\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NAMED_ABOVE = re.compile(r"`(\w+\.py)`:\n\n$")
INDENTED = re.compile(r"(?<=\n\n)(?:    .*\n(?:\n(?=    ))?)+")
BULLET = re.compile(r"^ *(?:[-*]|\d+\.) ", re.MULTILINE)


class Block(NamedTuple):
    page: str
    line: int
    kind: str
    text: str
    name: str | None
    why: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = PAGES[page]
    found = []
    for match in FENCE.finditer(text):
        # A file's name may also end a sentence.
        name = match["name"] or (NAMED_ABOVE.search(text[: match.start()]) or [None, None])[1]
        line = text.count("\n", 0, match.start("text")) + 1
        found.append(Block(page, line, match["kind"], match["text"], name, match["why"]))
    plain = FENCE.sub(lambda match: re.sub(r"[^\n]", "", match[0]), text)
    for match in INDENTED.finditer(plain):
        before = plain[: match.start()].rstrip().rpartition("\n\n")[2]
        if not BULLET.match(before):  # a list's paragraph, not code
            line = plain.count("\n", 0, match.start()) + 1
            body = re.sub(r"^    ", "", match[0], flags=re.MULTILINE)
            found.append(Block(page, line, "", body, None, None))
    return found


BLOCKS = {page: blocks(page) for page in PAGES}


# ---- looked at ----


def tree(source: str) -> ast.Module | None:
    try:
        compiled = compile(
            source, "-", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
    except SyntaxError:
        return None
    assert isinstance(compiled, ast.Module)
    return compiled


def unknown_of_ctask(module: ast.Module) -> list[str]:
    """What it takes from ctask that is not there."""
    unknown = []
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "ctask"
            and not hasattr(ctask, node.attr)
            and importlib.util.find_spec(f"ctask.{node.attr}") is None
        ):
            unknown.append(node.attr)
    return unknown


def is_a_piece(module: ast.Module) -> bool:
    """Whether it takes names that it does not have."""
    names = [node for node in ast.walk(module) if isinstance(node, ast.Name)]
    has = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    has |= {"asyncio", "ctask", "unittest", *dir(builtins)}
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            has.add(node.name)
        elif isinstance(node, ast.arg):
            has.add(node.arg)
        elif isinstance(node, ast.alias):
            has.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            has.add(node.name)
    return any(isinstance(node.ctx, ast.Load) and node.id not in has for node in names)


def commands(text: str) -> list[str]:
    """The commands of a block, which may go on in the next line, and are joined by &&."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):  # the others are what they print
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in lines]
    return [part.strip() for line in lines for part in re.split(r"&&|;", line) if part.strip()]


def problem(command: str) -> str | None:
    """Why this command cannot be run by who reads the page; None if it can, as far as is seen."""
    words = shlex.split(command.partition("|")[0])
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    program, *words = words
    program = os.path.basename(program)
    if program == "pip" and words[:1] == ["install"]:
        extras = [e for word in words for e in re.findall(r"\[([\w,]+)\]", word)]
        asked = {extra for found in extras for extra in found.split(",")}
        unknown = asked - PROJECT["optional-dependencies"].keys()
        return f"no extra {unknown}" if unknown else None
    if program in ("python", "pytest"):
        return problem_of_python(words if program == "python" else ["-m", "pytest"])
    if program == "ctask" or (ROOT / "tools" / program).exists():
        return None
    known = ("cd", "curl", "git", "kill", "perf", "gdb", "sudo", "uvicorn", "valgrind", "py-spy")
    return None if program in known else f"what is {program}?"


def problem_of_python(words: list[str]) -> str | None:
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-m":
            module = words[0].removesuffix(",")
            path = ROOT.joinpath(*module.split("."))
            here = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
            if here or importlib.util.find_spec(module.partition(".")[0]) or module == "uvicorn":
                return None
            return f"no module {module}"
        if option in ("-X", "-W"):
            words.pop(0)
        elif option == "-c":
            return None if tree(words[0]) else "no Python"
    if words and words[0].endswith(".py") and "/" in words[0]:
        return None if (ROOT / words[0]).exists() else f"no file {words[0]}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_of_a_known_kind_and_names_what_is_there(page):
    wrong = []
    for block in BLOCKS[page]:
        module = tree(block.text) if block.kind in ("python", "") else None
        if block.kind == "python" and module is None:
            wrong.append(f"{block.where}: no Python")
        elif module is not None:
            wrong += [f"{block.where}: ctask.{name}" for name in unknown_of_ctask(module)]
        elif block.kind == "sh" or (block.kind == "" and is_commands(block.text)):
            problems = {command: problem(command) for command in commands(block.text)}
            wrong += [f"{block.where}: {c}: {p}" for c, p in problems.items() if p]
        elif block.kind not in ("", *LISTINGS):
            wrong.append(f"{block.where}: what is a block of {block.kind}?")
    assert wrong == []


def is_commands(text: str) -> bool:
    """Of an indented block: else it is a drawing."""
    return bool(re.match(r"(?:\$ |[A-Z_]+=\S+ )*(?:\S*/)?(?:python|pip|ctask|curl|git)\b", text))


# ---- run ----


def programs(page: str) -> list[Block]:
    """The page's programs that are run by themselves."""
    found = []
    used = used_files(page)
    for block in BLOCKS[page]:
        if block.kind != "python" or block.why or block.name in used:
            continue
        module = tree(block.text)
        if page in WITH_PIECES and (module is None or is_a_piece(module)):
            continue
        found.append(block)
    return found


def shell_lines(page: str) -> list[str]:
    found = [block for block in BLOCKS[page] if block.kind == "sh" and not block.why]
    return [command for block in found for command in commands(block.text)]


def used_files(page: str) -> set[str]:
    words = {word for line in shell_lines(page) for word in shlex.split(line)}
    return words | {f"{word}.py" for word in words}


@pytest.fixture
def command(tmp_path):
    """Runs python in tmp_path, where it finds the files that it names; returns what came of it."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    environment.pop("PYTHONSAFEPATH", None)

    def command(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            input=text,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return command


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def with_a_free_port(source: str) -> str:
    return re.sub(r"\b(8000|9100)\b", str(free_port()), source)


def without_its_library(text: str) -> str | None:
    """The extra that a program needs whose library is not installed."""
    for extra, library in LIBRARIES.items():
        if f"ctask.observe.{extra}" in text and importlib.util.find_spec(library) is None:
            return extra
    return None


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)])
def test_the_programs_of_a_page_run(page, command, tmp_path):
    given = []
    for block in programs(page):
        extra = without_its_library(block.text)
        if extra:
            pytest.skip(f"{block.where} needs ctask[{extra}]")
        path = str(tmp_path / (block.name or f"line{block.line}.py"))
        serves = bool(SERVES.search(block.text))
        given.append({"source": with_a_free_port(block.text), "path": path, "serves": serves})
    done = command(DRIVER, text=json.dumps(given))
    assert done.returncode == 0, done.stderr
    outcomes = zip(programs(page), json.loads(done.stdout), strict=True)
    wrong = [f"{block.where}: {said}" for block, (status, said) in outcomes if status != 0]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("page", [page for page in PAGES if shell_lines(page)])
def test_the_commands_of_a_page_run(page, command, tmp_path):
    for block in BLOCKS[page]:
        if block.name:
            (tmp_path / block.name).write_text(block.text)
    for line in shell_lines(page):
        words = shlex.split(line)
        if words[:2] == ["pip", "install"]:
            continue  # looked at
        program = {"python": [], "pytest": ["-m", "pytest"]}[words[0]]
        done = command(*program, *words[1:])
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_each_reason_for_not_running_is_one():
    reasons = [block.why for page in PAGES for block in BLOCKS[page] if block.why is not None]
    assert all(len(reason.split()) >= 3 for reason in reasons)
    skipped = [text.count("<!-- not run here") for text in PAGES.values()]
    assert len(reasons) == sum(skipped)  # each stands where it is seen


# ---- README ----


README = PAGES["README.md"]


def test_readme_has_the_test_command_that_ci_runs():
    (command,) = re.findall(r'^readme_test="(.*)"$', (ROOT / ".ci" / "run").read_text(), re.M)
    assert f"\n    {command}\n" in README


def test_links_of_the_readme_are_absolute_and_lead_to_what_is_there():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    repository = PROJECT["urls"]["Repository"]
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    for link in links:
        path = re.fullmatch(rf"(?:{repository}/blob/main|{raw}/main)/([^#]+)(?:#(.+))?", link)
        assert path, link
        target = ROOT / path[1]
        assert target.exists(), link
        if path[2]:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert path[2] in anchors, link


# ---- the reference ----


def test_the_reference_names_what_is_there():
    reference = PAGES["reference.md"]
    names = re.findall(r"^(?:::: |#+ )ctask\.(\w+)", reference, re.MULTILINE)
    assert len(names) == len(set(names))
    assert set(names) - {"full"} <= set(ctask.__all__)
    assert importlib.util.find_spec("ctask.full")
