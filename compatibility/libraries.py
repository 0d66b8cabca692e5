"""The libraries whose tests are run: where their tests come from, and how they are run.

What a test needs is pinned in pins.txt.  Each exclusion has its reason.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Library:
    name: str
    version: str
    tests: tuple[str, ...] = ("tests",)  # what is given to pytest, in the source's directory
    # To install besides the library, with their versions from pins.txt.
    needs: tuple[str, ...] = ("pytest",)
    extras: str = ""
    # Debian's source package and version, where the index's source release has no tests.
    debian: tuple[str, str] | None = None
    # In the source's directory, but to be imported from where it is installed: compiled parts.
    hidden: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # pytest's
    environment: dict[str, str] = field(default_factory=dict)
    conftest: str = ""  # beside the library's own: what its own runner sets up before
    servers: tuple[str, ...] = ()
    as_root: bool = True
    # What is left out, with its reason: paths that are not looked at, and patterns of test ids.
    ignore: dict[str, str] = field(default_factory=dict)
    exclude: dict[str, str] = field(default_factory=dict)

    @property
    def requirement(self) -> str:
        return f"{self.name}{self.extras}=={self.version}"


LIBRARIES = (
    Library(
        "aiohappyeyeballs",
        "2.7.1",
        needs=("pytest", "pytest-asyncio"),
        options=("-o", "addopts=-Wdefault"),
        ignore={"tests/benchmarks": "measures"},
    ),
    Library(
        "aiohttp",
        "3.14.5",
        needs=(
            "blockbuster",
            "brotli",
            "coverage",
            "freezegun",
            "isal",
            "proxy.py",
            "pytest",
            "pytest-mock",
            "pytest-timeout",
            "python-on-whales",
            "re-assert",
            "trustme",
            "zlib-ng",
        ),
        hidden=("aiohttp",),
        options=("-o", "addopts=--strict-markers", "-m", "not dev_mode and not autobahn"),
        ignore={"tests/test_benchmarks_*": "measures"},
    ),
    Library(
        "anyio",
        "4.16.0",
        extras="[trio]",
        needs=(
            "blockbuster",
            "hypothesis",
            "psutil",
            "pytest",
            "pytest-mock",
            "pytest-timeout",
            "trustme",
            "truststore",
        ),
        environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        exclude={"*trio*": "on trio's loop"},
    ),
    Library(
        "asyncpg",
        "0.32.0",
        needs=("distro", "pytest"),
        hidden=("asyncpg",),
        environment={"PGINSTALLATION": "/usr/lib/postgresql/15/bin"},
        as_root=False,  # initdb refuses root
        ignore={"tests/test__sourcecode.py": "runs flake8 and mypy"},
    ),
    Library(
        "asyncssh",
        "2.24.1",
        needs=("aiofiles", "bcrypt", "fido2", "ifaddr", "pyOpenSSL", "pytest", "setuptools"),
        ignore={"tests/test_public_key.py": "makes keys, which takes long; no loop"},
        exclude={"*not_readable*": "hangs if run by root, who may read everything"},
    ),
    Library(
        "httpx",
        "0.28.1",
        extras="[brotli,cli,http2,socks,zstd]",
        needs=("chardet", "pytest", "trio", "trustme", "uvicorn"),
        exclude={"*trio*": "on trio's loop"},
    ),
    Library(
        "redis",
        "8.1.0",
        tests=("tests/test_asyncio",),
        needs=(
            "aiohttp",
            "cryptography",
            "numpy",
            "opentelemetry-sdk",
            "pybreaker",
            "pytest",
            "pytest-asyncio",
            "pytest-timeout",
            "redis-entraid",
            "xxhash",
        ),
        options=("-m", "not onlycluster and not ssl and not redismod and not multidb_integration"),
        ignore={"tests/test_asyncio/test_scenario": "needs a service that injects faults"},
        servers=("redis",),
    ),
    Library(
        "starlette",
        "1.10.0",
        extras="[full]",
        needs=("blockbuster", "opentelemetry-sdk", "pytest", "trio"),
        exclude={"*trio*": "on trio's loop"},
    ),
    Library(
        "tornado",
        "6.6.1",
        tests=("tornado/test",),
        needs=("hypothesis", "pytest"),
        options=("-o", "python_files=*_test.py"),
        environment={"ASYNC_TEST_TIMEOUT": "25"},
        conftest=(
            "import logging\nlogging.getLogger('tornado.access').setLevel(logging.CRITICAL)\n"
        ),
        exclude={"*test_api_snapshot": "has the name of asyncio.Future's module; ours is ctask's"},
    ),
    Library(
        "uvicorn",
        "0.54.0",
        # Its extra `standard` but for uvloop, which it would take.
        needs=(
            "a2wsgi",
            "cryptography",
            "h2",
            "httptools",
            "httpx2",
            "pytest",
            "pytest-mock",
            "python-dotenv",
            "pyyaml",
            "trustme",
            "watchfiles",
            "websockets",
            "wsproto",
            "zttp",
        ),
        options=("-o", "addopts=--strict-markers"),
        ignore={"tests/benchmarks": "measures"},
    ),
    Library(
        "websockets",
        "15.0.1",
        needs=("pytest", "python-socks[asyncio]", "werkzeug"),
        debian=("python-websockets", "15.0.1-1"),
        environment={"WEBSOCKETS_TESTS_TIMEOUT_FACTOR": "40"},  # on a busy machine
        ignore={"tests/sync": "threads and blocking sockets; no loop"},
    ),
)


def select(names: list[str]) -> list[Library]:
    """The libraries of these names, in the table's order; all of them if there are none."""
    known = {library.name for library in LIBRARIES}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"no such library: {', '.join(unknown)} (there are {sorted(known)})")
    return [library for library in LIBRARIES if not names or library.name in names]
