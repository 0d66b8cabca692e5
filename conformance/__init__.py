"""Run CPython's own tests of asyncio against another implementation.

`python -m conformance --candidate MODULE` runs the tests of the interpreter that it is
started with.  README.md says what is counted how.

selection.py   which test modules are run, and which tests are left out, each with its reason
candidate.py   puts the candidate in place of `_asyncio`, or of the event loop
child.py       runs one test module in a process of its own
runner.py      starts those processes, survives their crashes, gathers results
report.py      comparison with stock's run, known failures, counting, printing
__main__.py    the command line
"""
