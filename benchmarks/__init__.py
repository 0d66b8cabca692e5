"""Measures ctask against asyncio and the other event loops: `python -m benchmarks`, see
README.md.
"""
