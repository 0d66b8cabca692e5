"""Where ctask's C calls Python, or may drop what is somebody's: found in the source.

The grain is the function: a row of the table says which kinds of points a function has in its own
body. A kind that is new in a function, a function that is new or gone makes a difference; one more
call of a kind that it has does not.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from .._interpreter import ROOT

TABLE = Path(__file__).with_name("points.tsv")

# What is called (its whole name), and what can run there.
KINDS: dict[str, tuple[str, str]] = {
    "call": (
        r"PyObject_(Call|Vectorcall)\w*|PyEval_Eval\w*|PyRun_\w+|PyIter_\w+|PyObject_(GetIter|GetAIter"
        r"|ClearWeakRefs)|(tp|am|nb|sq|mp)_\w+|vectorcall",
        "a function, an iterator, a coroutine, a finalizer, the callback of a weak reference",
    ),
    "attr": (
        r"_?PyObject_(Get|GetOptional|Has|Set|Del|Lookup|GenericGet|GenericSet)Attr\w*|PyObject_Dir",
        "__getattribute__, __getattr__, __setattr__, a property, a descriptor",
    ),
    "truth": (r"PyObject_(IsTrue|Not)", "__bool__, __len__"),
    "compare": (r"PyObject_RichCompare\w*", "__eq__, __lt__"),
    "type": (r"PyObject_Is(Instance|Subclass)", "__instancecheck__, __class__"),
    "key": (
        r"PyDict_(GetItem|SetItem|DelItem|Contains|SetDefault|Pop|Merge|Update)\w*|PyObject_Hash"
        r"|PySet_(Contains|Add|Discard|Pop)|_PyType_Lookup",
        "__hash__, and __eq__ of another key with the same hash",
    ),
    "item": (
        r"PySequence_\w+|PyMapping_\w+|PyObject_(GetItem|SetItem|DelItem|Size|Length)",
        "__len__, __getitem__, __iter__",
    ),
    "number": (
        r"PyNumber_\w+|PyLong_As\w+|PyFloat_AsDouble|PyObject_AsFileDescriptor",
        "__index__, __float__, __add__, fileno()",
    ),
    "text": (r"PyObject_(Str|Repr|ASCII|Format)", "__str__, __repr__"),
    "buffer": (
        r"PyObject_GetBuffer|PyBuffer_Release|PyBytes_FromObject|PyMemoryView_FromObject",
        "__buffer__, __release_buffer__; in C of others what gives a buffer",
    ),
    "import": (r"PyImport_\w+", "a module, sys.modules, an importer"),
    "parse": (r"PyArg_Parse\w*", "__index__, __float__, __bool__ of arguments"),
    "report": (
        r"PyErr_(Warn\w*|ResourceWarning|WriteUnraisable|NormalizeException|SetObject|CheckSignals"
        r"|SetFromErrno\w*|Print\w*)|PySys_Audit",
        "warnings.showwarning, sys.unraisablehook, a constructor, a signal handler, an audit hook",
    ),
    "drop": (
        r"Py_(X?DECREF|CLEAR|X?SETREF)|PyErr_Clear|PyErr_Restore|Py(Dict|Set)_Clear|PyList_Set(Item|Slice)"
        r"|PySequence_DelSlice|PyObject_ClearManagedDict",
        "__del__, the callback of a weak reference, what a frame of a traceback let live",
    ),
    "alloc": (
        r"_?PyObject_GC_New\w*|PyUnstable_Object_GC_New\w*|PyType_GenericAlloc|PyTuple_(New|Pack)"
        r"|PyList_(New|GetSlice)|PyDict_(New|Copy|Items|Values)|PySet_New|Py(Method|CFunction|Function)_New"
        r"|PyContext_(New|Copy|CopyCurrent)|PyWeakref_NewRef",
        "a garbage collection (up to 3.11; later ones wait for the interpreter)",
    ),
}

# Their text may show objects.
FORMATS = re.compile(r"\b(PyErr_Format|PyErr_WarnFormat|PyUnicode_FromFormat|PyErr_FormatV)\(")
SHOWS = re.compile(r"%[-.\d]*[RSA]")

CALLED = [(kind, re.compile(rf"(?<![\w])({what})\(")) for kind, (what, _) in KINDS.items()]
NAME = re.compile(r"^(?:\w[^\n;{}()#]*[ *])?(\w+)\(", re.MULTILINE)


class Row(NamedTuple):
    file: str
    function: str
    kinds: str
    programs: str = "-"
    note: str = ""

    @property
    def place(self) -> tuple[str, str]:
        return self.file, self.function


def code(text: str) -> str:
    """The text without comments, and strings without what is in them but %R and its like."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    def quiet(match: re.Match[str]) -> str:
        inner = match[0][1:-1]
        kept = "".join(SHOWS.findall(inner))
        return '"' + kept.ljust(len(inner)) + '"'

    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'"
    return re.sub(
        pattern, lambda m: blank(m) if m[0][0] == "/" else quiet(m), text, flags=re.DOTALL
    )


def functions(text: str) -> list[tuple[str, str]]:
    """Each function's name and body, and each macro's; of `code()`."""
    found: list[tuple[str, str]] = []
    rest = text
    for macro in re.finditer(r"^#\s*define (\w+)\(?(?:[^\n]*\\\n)*[^\n]*", text, re.MULTILINE):
        found.append((f"#{macro[1]}", macro[0]))
        rest = rest.replace(macro[0], re.sub(r"[^\n]", " ", macro[0]), 1)
    begin = 0
    for body in re.finditer(r"^\{\n.*?^\}", rest, re.MULTILINE | re.DOTALL):
        names = NAME.findall(rest[begin : body.start()])
        begin = body.end()
        if names:
            found.append((names[-1], body[0]))
    line = r"^static inline [^\n]*?(\w+)\([^\n]*\)\s*\{[^\n]*\}"
    found += [(match[1], match[0]) for match in re.finditer(line, rest, re.MULTILINE)]
    return found


def kinds_of(body: str) -> set[str]:
    found = {kind for kind, called in CALLED if called.search(body)}
    for form in FORMATS.finditer(body):
        if SHOWS.search(body[form.start() : body.index(";", form.start())]):
            found.add("text")
    return found


def sources(root: Path) -> list[Path]:
    return [*sorted(root.glob("src/**/*.[ch]")), *sorted(root.glob("*.c"))]


@functools.cache
def _lines(path: Path) -> list[str]:
    return code(path.read_text()).splitlines()


def line(file: str, number: int, root: Path = ROOT) -> str:
    """A line of the source, without comments; nothing, if that is none of ours."""
    for path in (root / "src" / file, root / file):
        if path.is_file():
            return _lines(path)[number - 1]
    return ""


def listed(root: Path = ROOT) -> list[Row]:
    """Of each function with a point the row that the table should have."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in sources(root):
        file = str(path.relative_to(root)).removeprefix("src/")
        for name, body in functions(code(path.read_text())):
            kinds = kinds_of(body)
            if kinds:
                found.setdefault((file, name), set()).update(kinds)
    order = list(KINDS)
    return [
        Row(file, name, " ".join(sorted(kinds, key=order.index)))
        for (file, name), kinds in found.items()
    ]


def read(table: Path = TABLE) -> list[Row]:
    lines = table.read_text().splitlines() if table.exists() else []
    return [Row(*line.split("\t")) for line in lines if line and not line.startswith("#")]


HEAD = """\
# Where C calls Python, or may drop what is somebody's: one row for each function that does, made by
# `python -m attacks evil --write`, which keeps the last two columns. programs: those whose code did
# run there (--mark), `none` if nothing foreign can (note: why), `-` not attacked yet. What can run:
"""


def write(rows: list[Row], table: Path = TABLE) -> None:
    width = max(map(len, KINDS))
    legend = "".join(f"#   {kind:{width}}  {what}\n" for kind, (_, what) in KINDS.items())
    lines = "".join("\t".join(row).rstrip("\t") + "\n" for row in rows)
    head = "\t".join(Row._fields)
    table.write_text(f"{HEAD}{legend}# {head}\n{lines}")


def merged(new: list[Row], old: list[Row]) -> list[Row]:
    """What the source says, with what people and programs have said of it."""
    said = {row.place: row for row in old}
    return [
        row._replace(programs=said[row.place].programs, note=said[row.place].note)
        if row.place in said
        else row
        for row in new
    ]


def differences(new: list[Row], old: list[Row], programs: set[str]) -> list[str]:
    """Why the table is not that of the source."""
    found = []
    said = {row.place: row for row in old}
    if len(said) < len(old):
        found.append("a function has two rows")
    for row in new:
        where = f"src/{row.file}: {row.function}()"
        if row.place not in said:
            found.append(f"{where} has no row: {row.kinds}")
        elif row.kinds != said[row.place].kinds:
            found.append(f"{where} has {row.kinds}, the table {said[row.place].kinds}")
    places = {row.place for row in new}
    for row in old:
        where = f"src/{row.file}: {row.function}()"
        if row.place not in places:
            found.append(f"{where} is in the table, and no point")
        if row.programs == "none":
            if not row.note:
                found.append(f"{where}: why can nothing foreign run there?")
        elif row.programs != "-":
            unknown = set(row.programs.split()) - programs
            found += [f"{where}: no program is called {name}" for name in sorted(unknown)]
    return found
