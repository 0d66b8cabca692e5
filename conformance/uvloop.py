"""Judge a run of uvloop's own tests: `python -m conformance.uvloop RESULTS EXPECTED`.

RESULTS is what the runner of that suite wrote with --json.  EXPECTED lists the tests that may
fail, each with its reason.  Exit status 1 if another one failed, or if nothing was run.
"""

import json
import sys

from conformance.report import load_expected


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with open(argv[0]) as f:
        results = json.load(f)["results"]
    rules = load_expected(argv[1])
    counts = dict.fromkeys(("passed", "failed", "expected", "skipped"), 0)
    expected, unexpected, failures = [], [], []
    for ident, result in results.items():
        outcome = result["outcome"]
        rule = next((r for r in rules if r.matches("uvloop", ident)), None)
        if outcome in ("passed", "skipped"):
            counts[outcome] += 1
            if rule and outcome == "passed":
                unexpected.append(f"{ident}  # {rule.reason}")
        elif rule:
            counts["expected"] += 1
            expected.append(f"{ident}  # {rule.reason}")
        else:
            counts["failed"] += 1
            failures.append(f"{outcome:8} {ident}\n{result['msg']}")
    for title, lines in (
        ("failed", failures),
        ("failed, as expected", expected),
        ("listed as failing, but passed", unexpected),
    ):
        if lines:
            print(f"\n{title}:", *lines, sep="\n  ")
    print("\nuvloop: " + "  ".join(f"{name} {n}" for name, n in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
