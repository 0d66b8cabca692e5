"""The table that is printed, and the line at its end."""

from dataclasses import dataclass, field
from typing import Any

from compatibility.compare import BOTH, CTASK_ONLY, FLAKY, PASS, SKIP, VERDICTS, count
from compatibility.libraries import Library

COLUMNS = ("tests", *VERDICTS, "on ctask's loop", "s asyncio", "s ctask")


@dataclass
class Result:
    """What became of one library's suite."""

    library: Library
    verdicts: dict[str, str] = field(default_factory=dict)
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)  # what is not a plain pass
    on_ctask: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    notes: list[str] = field(default_factory=list)
    refused: str | None = None  # why it is no result

    @property
    def is_good(self) -> bool:
        return self.refused is None and CTASK_ONLY not in self.verdicts.values()

    def as_json(self) -> dict[str, Any]:
        return {
            "version": self.library.version,
            "counts": count(self.verdicts),
            "on ctask's loop": self.on_ctask,
            "seconds": {"asyncio": self.seconds[0], "ctask": self.seconds[1]},
            "tests": self.tests,
            "notes": self.notes,
            "refused": self.refused,
        }


def cells(result: Result) -> list[str]:
    counted = count(result.verdicts)
    numbers = [len(result.verdicts), *counted.values(), result.on_ctask]
    return [*map(str, numbers), *(f"{seconds:.0f}" for seconds in result.seconds)]


def table(results: list[Result]) -> str:
    head = ["library", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * len(COLUMNS) + "|"]
    for result in results:
        name = f"{result.library.name} {result.library.version}"
        row = [f"refused: {result.refused.splitlines()[0]}"] if result.refused else cells(result)
        lines.append("| " + " | ".join([name, *row]) + " |")
    return "\n".join(lines)


def details(result: Result) -> str:
    """What needs to be looked at, worst first."""
    lines = []
    for wanted in (CTASK_ONLY, FLAKY):
        for ident, test in result.tests.items():
            if test["verdict"] != wanted:
                continue
            lines.append(f"{wanted.upper()} {result.library.name} {ident}")
            lines.append(f"    {test['asyncio']} -> {test['ctask']}")
            if wanted == CTASK_ONLY:
                lines += [f"    {line}" for line in test.get("message", "").splitlines()[-12:]]
    lines += [f"NOTE {result.library.name}: {note}" for note in result.notes]
    if result.refused:
        lines.append(f"REFUSED {result.library.name}: {result.refused}")
    return "\n".join(lines)


def closing_line(results: list[Result]) -> str:
    total = dict.fromkeys(VERDICTS, 0)
    for result in results:
        for name, number in count(result.verdicts).items():
            total[name] += number
    refused = sum(result.refused is not None for result in results)
    return (
        f"compatibility: {len(results)} suites, {sum(total.values())} tests, "
        f"{total[PASS]} pass, {total[SKIP]} skipped, {total[BOTH]} fail on both, "
        f"{total[FLAKY]} flaky, {total[CTASK_ONLY]} fail on ctask only"
        + (f", {refused} refused" if refused else "")
    )
