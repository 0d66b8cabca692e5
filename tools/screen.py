#!/usr/bin/env python3
"""tools/screen.py [--seconds S] [--size 80x24] COMMAND ...: a terminal's screen as an SVG.

Runs a command on a pseudo terminal of that size for so long at most, and draws what its last screen
showed, for docs/images: `tools/screen.py python -m ctask top PID > docs/images/top.svg`.
"""

import argparse
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from xml.sax.saxutils import escape

CLEAR = b"\x1b[H\x1b[J"


def run(command: list[str], columns: int, lines: int, seconds: float) -> str:
    """Return the text of the last screen."""
    pid, terminal = pty.fork()
    if pid == 0:
        time.sleep(0.2)  # for the size to be set
        size = ("COLUMNS", "LINES")  # which would count for more than the terminal's
        environ = {key: value for key, value in os.environ.items() if key not in size}
        os.execvpe(command[0], command, environ)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    came, until = b"", time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if not select.select([terminal], [], [], left)[0]:
            continue
        try:
            came += os.read(terminal, 1 << 16)
        except OSError:  # it has ended
            break
    else:
        os.kill(pid, signal.SIGINT)
    os.close(terminal)
    os.waitpid(pid, 0)
    screens = [screen for screen in came.split(CLEAR) if screen.strip()]
    return screens[-1].decode(errors="replace") if screens else ""


def draw(text: str, columns: int, lines: int) -> str:
    """Return the SVG; what is wider than the screen goes on in the next line, as it does there."""
    rows = [
        row[at : at + columns]
        for row in text.replace("\r", "").rstrip("\n").split("\n")
        for at in range(0, max(1, len(row)), columns)
    ][-lines:]
    wide, high = columns * 8 + 24, len(rows) * 18 + 24
    body = "\n".join(
        f'<text x="12" y="{25 + 18 * n}" textLength="{8 * len(row)}">{escape(row)}</text>'
        for n, row in enumerate(rows)
        if row
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">
<style>text {{ font: 13px monospace; fill: #ddd; white-space: pre }}</style>
<rect width="100%" height="100%" rx="6" fill="#1c1f24"/>
{body}
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.5)
    parser.add_argument("--size", default="80x24")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    columns, lines = map(int, options.size.split("x"))
    sys.stdout.write(draw(run(options.command, columns, lines, options.seconds), columns, lines))


if __name__ == "__main__":
    main()
