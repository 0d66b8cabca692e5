"""`dask`, with ctask as asyncio's default: dask_node.py scheduler ..., dask_node.py worker ...

A process that a nanny starts imports this file again, and so has it, too.
"""

import os

if os.environ.get("CTASK_TESTS_ON") != "asyncio":
    import ctask

    ctask.install()

if __name__ == "__main__":
    from dask.__main__ import main

    main()
