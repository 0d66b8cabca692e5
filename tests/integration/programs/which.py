"""What ran: a program's answer to the question whether it was ctask."""

import asyncio


def loop() -> str:
    """The full name of the type of the running loop."""
    kind = type(asyncio.get_running_loop())
    return f"{kind.__module__}.{kind.__qualname__}"
