"""What setup.py makes of its environment variables, without a compiler."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SETUP = Path(__file__).resolve().parents[2] / "setup.py"
FLAGS = ("CTASK_PGO", "CTASK_OLD_GLIBC", "CTASK_WERROR", "CTASK_SANITIZE", "CFLAGS")

pytestmark = pytest.mark.ctask_only


class FakeBuild:
    """setuptools' command, as far as setup.py goes: notes what it is asked to compile."""

    def __init__(self, folder):
        self.build_temp, self.build_lib = str(folder / "temp"), "lib"
        self.inplace, self.editable_mode, self.force = True, True, False
        self.compiler = SimpleNamespace(compiler_so=["cc", "-O2"])
        self.calls = []

    def build_extension(self, ext):
        place = "elsewhere" if self.build_lib != "lib" else "lib"
        args = [*ext.extra_compile_args], [*ext.extra_link_args]
        self.calls.append((place, self.inplace, self.force, *args))


@pytest.fixture
def read_setup(monkeypatch):
    """Run setup.py with these variables set; its names, with what it gave to setup()."""

    def read(**variables):
        given = {}
        fakes = {name: ModuleType(name) for name in ("setuptools", "setuptools.command")}
        build_ext = ModuleType("setuptools.command.build_ext")
        build_ext.build_ext = FakeBuild
        fakes["setuptools.command.build_ext"] = build_ext
        fakes["setuptools"].Extension = lambda name, **options: SimpleNamespace(**options)
        fakes["setuptools"].setup = given.update
        for name, module in fakes.items():
            monkeypatch.setitem(sys.modules, name, module)
        for name in FLAGS:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        names = runpy.run_path(str(SETUP))
        (ext,) = given["ext_modules"]
        return SimpleNamespace(names=names, ext=ext, build=given["cmdclass"]["build_ext"])

    return read


@pytest.fixture
def commands(monkeypatch):
    """No program is run: what would be, and what --version is to say."""
    done = SimpleNamespace(run=[], version="gcc (Debian) 12", leaves=lambda env: None)

    def run(command, **options):
        done.run.append((list(command), options.get("env")))
        if "benchmarks.train" in command:
            done.leaves(options["env"])
        answers = {"--version": done.version, "-print-prog-name=llvm-profdata": "profdata"}
        return SimpleNamespace(stdout=answers.get(command[-1], "") + "\n")

    monkeypatch.setattr("subprocess.run", run)
    return done


def flags(read):
    return [*read.ext.extra_compile_args, *read.ext.extra_link_args]


@pytest.mark.parametrize(
    "variables, kept",
    [
        ({}, False),
        ({"CFLAGS": "-O1"}, False),
        ({"CFLAGS": "-O1 -g3"}, True),
        ({"CTASK_SANITIZE": "1"}, True),
    ],
)
def test_debug_information_is_kept_for_who_asks_for_it(read_setup, variables, kept):
    assert ("-Wl,--strip-debug" in flags(read_setup(**variables))) is not kept


@pytest.mark.parametrize("off", ["", "0"])
def test_a_plain_build_is_as_if_nothing_was_set(read_setup, off):
    plain = flags(read_setup())
    assert "-O3" in plain
    assert flags(read_setup(**dict.fromkeys(FLAGS, off))) == plain


def test_each_flag_adds_its_own(read_setup):
    plain = flags(read_setup())
    assert set(flags(read_setup(CTASK_WERROR="1"))) - set(plain) == {"-Werror"}
    old = set(flags(read_setup(CTASK_OLD_GLIBC="1"))) - set(plain)
    assert "-DCTASK_OLD_GLIBC" in old
    assert "-l:libdl.so.2" in old
    assert "-fsanitize=address,undefined" in flags(read_setup(CTASK_SANITIZE="1"))
    assert "-fsanitize=thread" in flags(read_setup(CTASK_SANITIZE="thread"))
    # What it means for the compiler is known when the compiler is.
    assert flags(read_setup(CTASK_PGO="1")) == plain


def test_a_plain_build_compiles_once(read_setup, commands, tmp_path):
    setup = read_setup()
    build = setup.build(tmp_path)
    build.build_extension(setup.ext)
    assert [call[0] for call in build.calls] == ["lib"]
    assert commands.run == []


def test_sanitizers_are_not_trained(read_setup, commands, tmp_path):
    setup = read_setup(CTASK_PGO="1", CTASK_SANITIZE="1")
    build = setup.build(tmp_path)
    build.build_extension(setup.ext)
    assert [call[0] for call in build.calls] == ["lib"]


def test_pgo_compiles_with_counters_trains_and_compiles_again(read_setup, commands, tmp_path):
    setup = read_setup(CTASK_PGO="1", CTASK_WERROR="1")
    compiling, linking = setup.ext.extra_compile_args, setup.ext.extra_link_args
    temp = tmp_path / "temp"
    temp.mkdir()
    old = temp / "old.gcda"
    old.touch()

    def leaves(environment):
        assert not old.exists()  # another run's counts would be added to
        trained = environment["PYTHONPATH"].split(":")[0]
        assert Path(trained, "ctask", "__init__.py").exists()
        assert not list(Path(trained, "ctask").glob("*.so"))
        assert environment["PYTHONHASHSEED"] == "0"
        Path(temp, "ctask.gcda").touch()

    commands.leaves = leaves
    build = setup.build(tmp_path)
    build.build_extension(setup.ext)
    first, second = build.calls
    assert first[:3] == ("elsewhere", False, True)
    assert "-fprofile-generate" in first[3]
    assert "-fprofile-generate" in first[4]
    assert second[:3] == ("lib", True, True)
    assert second[3][: len(compiling)] == compiling
    assert second[4] == linking
    assert "-fprofile-use" in second[3]
    assert not any("-fprofile-generate" in flag for flag in [*second[3], *second[4]])
    assert build.editable_mode


def test_pgo_fails_without_a_profile(read_setup, commands, tmp_path):
    setup = read_setup(CTASK_PGO="1")
    with pytest.raises(SystemExit, match="no profile"):
        setup.build(tmp_path).build_extension(setup.ext)


def test_pgo_with_clang_merges_the_raw_profile(read_setup, commands, tmp_path):
    commands.version = "Debian clang version 14.0.6"
    setup = read_setup(CTASK_PGO="1")
    build = setup.build(tmp_path)
    build.build_extension(setup.ext)
    first, second = build.calls
    assert "-fprofile-instr-generate" in first[3]
    merged = tmp_path / "temp" / "ctask.profdata"
    assert second[3][-1] == f"-fprofile-instr-use={merged}"
    train, merge = commands.run[-2:]
    raw = train[1]["LLVM_PROFILE_FILE"]
    assert merge[0] == ["profdata", "merge", "-o", str(merged), raw]
