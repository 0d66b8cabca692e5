"""What the results amount to: comparison with stock, known failures, counts, the printed page."""

import fnmatch
import re
from typing import Any, NamedTuple

from conformance.runner import ModuleRun, Results

BAD = ("fail", "error", "timeout", "crash", "notrun")
KEYS = ("passed", "failed", "errors", "skipped")

Counts = dict[str, int]


class Rule(NamedTuple):
    """A known failure."""

    layer: str
    pattern: str
    reason: str

    def matches(self, layer: str, ident: str) -> bool:
        return self.layer in ("*", layer) and fnmatch.fnmatchcase(ident, self.pattern)


def load_expected(filename: str) -> list[Rule]:
    """Lines `[LAYER:]PATTERN  # reason`."""
    rules = []
    with open(filename) as f:
        for line in map(str.strip, f):
            if not line or line.startswith("#"):
                continue
            pattern, _, reason = line.partition("#")
            pattern, reason = pattern.strip(), reason.strip()
            if not reason:
                raise SystemExit(f"{filename}: no reason given: {line}")
            m = re.match(r"(tasks|loop|both):(.*)", pattern)
            rules.append(Rule(m[1], m[2], reason) if m else Rule("*", pattern, reason))
    return rules


def classify(run: ModuleRun) -> None:
    """Set each result's class: its status, but "untouched" for a pass that says nothing."""
    for res in run.results.values():
        idle = run.layer == "loop" and res["status"] == "pass" and res["made"] == 0
        res["class"] = "untouched" if idle else res["status"]


def compare(run: ModuleRun, base: Results, whole: bool) -> None:
    """Fail what stock passed and the candidate skipped, left untouched or lost."""
    module = run.name + "."
    for ident, old in base.items():
        if not ident.startswith(module) or old["class"] != "pass":
            continue
        new = run.results.get(ident)
        if new is None:
            if whole and ident not in run.excluded:
                run.record(ident, "notrun", "stock has this test; here it was not found")
                run.results[ident]["class"] = "notrun"
        elif new["class"] in ("skip", "untouched"):
            was = f"stock runs and passes this test; here it was {new['class']}: "
            new["message"] = was + new["message"]
            new["class"] = "fail"


def count(run: ModuleRun) -> Counts:
    c = dict.fromkeys(KEYS, 0)
    c.update(untouched=0, expected=0, excluded=len(run.excluded))
    keys = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    for res in run.results.values():
        cls = res["class"]
        c[cls if cls in ("untouched", "expected") else keys.get(cls, "errors")] += 1
    return c


def add(total: Counts, more: Counts) -> None:
    for key, n in more.items():
        total[key] = total.get(key, 0) + n


def counts_line(c: Counts) -> str:
    line = "  ".join(f"{k} {c.get(k, 0):5}" for k in KEYS)
    extra = [f"{k} {c[k]}" for k in ("untouched", "excluded", "expected") if c.get(k)]
    return line + ("  (" + ", ".join(extra) + ")" if extra else "")


class LayerReport:
    """Takes the module runs of one layer in order, prints them, and ends in `data` (for --json)."""

    def __init__(self, layer: str, rules: list[Rule], whole: bool) -> None:
        self.layer = layer
        self.rules = rules
        self.whole = whole
        self.total: Counts = dict.fromkeys(KEYS, 0)
        self.data: dict[str, Any] = {"tests": {}, "modules": {}, "excluded": {}}
        self.failures: list[tuple[str, dict[str, Any]]] = []
        self.flaky: list[str] = []
        self.expected: list[tuple[str, str]] = []
        self.unexpected: list[tuple[str, str]] = []
        print(f"--- layer {layer}", flush=True)

    def print_install(self, run: ModuleRun) -> None:
        print("    network: " + ("loopback only" if run.isolated else "NOT cut off"))
        for key, info in run.info.items():
            loop_type = f", loop type {info['type']}" if "type" in info else ""
            print(f"    {key}: {info['how']}{loop_type}")
            for missing in info["missing"]:
                print(
                    f"    {key}: MISSING in the candidate: {missing} (a stub that raises stands "
                    "in; the tests that need it fail)"
                )

    def take(self, run: ModuleRun, base: Results | None) -> None:
        if "install" not in self.data:
            self.print_install(run)
            self.data["install"] = run.info
        if base is not None:
            compare(run, base, self.whole)
        for ident, res in run.results.items():
            self.apply_rules(ident, res)
            if res.get("flaky"):
                self.flaky.append(ident)
            if res["class"] in BAD:
                self.failures.append((ident, res))
            self.data["tests"][ident] = res
        self.data["excluded"].update(run.excluded)
        c = count(run)
        self.data["modules"][run.name] = {
            **c,
            "seconds": round(run.seconds, 2),
            "notes": run.notes,
        }
        add(self.total, c)
        print(f"{run.name:37} {counts_line(c)}  {run.seconds:.1f} s")
        for note in run.notes:
            print(f"    note: {note}")
        print(end="", flush=True)

    def apply_rules(self, ident: str, res: dict[str, Any]) -> None:
        rule = next((r for r in self.rules if r.matches(self.layer, ident)), None)
        if rule is None:
            return
        if res["class"] in BAD:
            self.expected.append((ident, rule.reason))
            res["class"] = "expected"
        elif res["class"] == "pass":
            self.unexpected.append((ident, rule.reason))

    def finish(self, verbose: bool) -> bool:
        """Print the rest; whether anything counts as failed."""
        flaky = f"  flaky {len(self.flaky)}" if self.flaky else ""
        print(f"{'TOTAL ' + self.layer:37} {counts_line(self.total)}{flaky}")
        self.data["total"] = self.total
        self.data["flaky"] = self.flaky
        if self.failures:
            print(f"\nfailing in layer {self.layer}:")
        for ident, res in self.failures:
            lines = [ln for ln in res["message"].strip().splitlines() if ln.strip()] or [""]
            brief = lines[0] if res["class"] in ("timeout", "crash", "notrun") else lines[-1]
            print(f"  {res['class']:8} {ident}: {brief[:150]}")
            if verbose:
                print("    " + res["message"].replace("\n", "\n    "))
        for title, items in (
            ("flaky (passed when run again)", [(i, "") for i in self.flaky]),
            ("failed as --expected says", self.expected),
            ("in --expected, but passed", self.unexpected),
        ):
            if items:
                print(f"\n{title}:")
            for ident, reason in items:
                print(f"  {ident}" + (f"  # {reason}" if reason else ""))
        nothing = not any(n for key, n in self.total.items() if key != "excluded")
        if nothing:
            print("no test was run")
        print(end="", flush=True)
        return nothing or bool(self.failures)
