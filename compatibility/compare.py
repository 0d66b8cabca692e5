"""What a test's outcomes on the two sides mean, after running doubtful ones again."""

from collections import Counter
from collections.abc import Mapping, Sequence

GOOD = frozenset({"passed", "xfailed", "xpassed"})
MISSING = "missing"

# Verdicts, in the order in which they are counted and shown.
PASS = "pass"
SKIP = "skip"
BOTH = "both"  # bad on either side: not about ctask
ASYNCIO_ONLY = "asyncio only"
FLAKY = "flaky"
CTASK_ONLY = "ctask only"
VERDICTS = (PASS, SKIP, BOTH, ASYNCIO_ONLY, FLAKY, CTASK_ONLY)


def verdict(asyncio: str, ctask: str) -> str:
    """What passes on asyncio has to pass on ctask: to be skipped, or not found, is not enough."""
    if asyncio in GOOD:
        return PASS if ctask in GOOD else CTASK_ONLY
    if ctask in GOOD:
        # Skipped on asyncio, or unknown there: nothing that ctask could have got wrong.
        return ASYNCIO_ONLY if asyncio not in ("skipped", MISSING) else PASS
    if asyncio == ctask == "skipped":
        return SKIP
    # A test that asyncio's run does not know has nobody else to blame.
    return CTASK_ONLY if asyncio == MISSING else BOTH


def verdicts(asyncio: Mapping[str, str], ctask: Mapping[str, str]) -> dict[str, str]:
    ids = [*asyncio, *(ident for ident in ctask if ident not in asyncio)]
    return {i: verdict(asyncio.get(i, MISSING), ctask.get(i, MISSING)) for i in ids}


def settle(asyncio: Sequence[str], ctask: Sequence[str]) -> str:
    """The verdict on a test that failed on ctask only, after both sides ran it again.

    It is flaky if it passes each time now, or if asyncio fails it now and then, too.
    """
    if all(outcome in GOOD for outcome in ctask):
        return FLAKY
    return CTASK_ONLY if all(outcome in GOOD for outcome in asyncio) else FLAKY


def count(verdicts: Mapping[str, str]) -> dict[str, int]:
    counted = Counter(verdicts.values())
    return {name: counted[name] for name in VERDICTS}
