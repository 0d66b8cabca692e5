"""Runs the test suites of other people's libraries on asyncio and on ctask, test by test.

libraries.py is the table of them; the command line is `python -m compatibility`.
"""
