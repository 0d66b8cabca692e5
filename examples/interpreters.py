"""A server with a loop in each of several interpreters: more than one core in one process.

From Python 3.12 on an interpreter may have a lock of its own. Here each has a thread, in which a ctask
loop serves; they share a port, or the first interpreter accepts and hands descriptors over.

    python interpreters.py --workers 2                       # until standard input ends
    python interpreters.py --workers 2 --accept here         # one accepts for all
    python interpreters.py --workers 2 --of processes        # to compare: or --of threads

What arrives is sent back; "who?" is answered with the number of the worker.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import ctask

HOST = "127.0.0.1"


# --- in each worker


class Echo(asyncio.Protocol):
    def __init__(self, number, work, connections):
        self.number = number
        self.work = work
        self.connections = connections

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(transport)

    def connection_lost(self, exc):
        self.connections.discard(self.transport)

    def data_received(self, data):
        if data == b"who?":
            data = b"%d" % self.number
        sum(range(self.work))  # what a request computes
        self.transport.write(data)


async def serve_until_told(number, port, control, work):
    """Serve on `port`, or if that is 0 the connections whose descriptors come from `control`."""
    loop = asyncio.get_running_loop()
    connections = set()
    server = None

    def protocol():
        return Echo(number, work, connections)

    if port:
        server = await loop.create_server(protocol, HOST, port, reuse_port=True)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=control))
    writer.write(b"!")  # ready
    try:
        while True:
            # The same number means the same file in all interpreters of the process.
            descriptor = int.from_bytes(await reader.readexactly(4), "big")
            accepted = socket.socket(fileno=descriptor)
            await loop.connect_accepted_socket(protocol, accepted)
    except asyncio.IncompleteReadError:  # the end
        writer.close()
        if server is not None:
            server.close()
        for transport in [*connections]:
            transport.close()
        await asyncio.sleep(0)  # they are lost


def serve(number, port, control, work):
    ctask.run(serve_until_told(number, port, control, work))


# --- in the program


def call_in_interpreter(module, arguments):
    """Call `module`'s serve() in a new interpreter with its own lock; return when it has returned."""
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(module)!r}); "
        f"import {Path(module).stem} as example; example.serve(*{arguments!r})"
    )
    if sys.version_info >= (3, 14):
        from concurrent import interpreters

        interpreter = interpreters.create()
        interpreter.exec(code)
        interpreter.close()
    elif sys.version_info >= (3, 13):
        import _interpreters

        interpreter = _interpreters.create("isolated")
        failed = _interpreters.run_string(interpreter, code)
        if failed is not None:
            print(failed.formatted, file=sys.stderr)
        _interpreters.destroy(interpreter)
    else:
        import _xxsubinterpreters

        interpreter = _xxsubinterpreters.create(isolated=True)
        _xxsubinterpreters.run_string(interpreter, code)
        # Not destroyed: 3.12 may crash when one goes that has imported ssl, as asyncio does.


def start(kind, number, port, work):
    """Start a worker. Return what can be waited for, and the socket that controls it."""
    ours, theirs = socket.socketpair()
    arguments = (number, port, theirs.detach(), work)
    if kind == "processes":
        command = [sys.executable, __file__, "--serve", ",".join(map(str, arguments))]
        worker = subprocess.Popen(command, pass_fds=[arguments[2]])
        os.close(arguments[2])
        return worker.wait, ours
    if kind == "interpreters":
        target, arguments = call_in_interpreter, (os.path.abspath(__file__), arguments)
    else:
        target = serve
    thread = threading.Thread(target=target, args=arguments)
    thread.start()
    return thread.join, ours


def hand_over(listening, controls):
    """Accept, and give the connections to the workers in turn."""
    number = 0
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # shut down: the end
            return
        controls[number % len(controls)].sendall(connection.detach().to_bytes(4, "big"))
        number += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--of", choices=["interpreters", "processes", "threads"], default="interpreters"
    )
    parser.add_argument("--accept", choices=["there", "here"], default="there")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--work", type=int, default=0, help="what a request computes")
    parser.add_argument("--serve", help=argparse.SUPPRESS)  # a process that is a worker
    options = parser.parse_args()
    if options.serve:
        serve(*map(int, options.serve.split(",")))
        return
    if options.of == "interpreters" and sys.version_info < (3, 12):
        sys.exit("interpreters with a lock of their own came with Python 3.12")
    if options.of == "processes" and options.accept == "here":
        sys.exit("a descriptor's number says nothing to another process")

    # Holds the port, also when all that listen on it are workers.
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind((HOST, options.port))
    port = listening.getsockname()[1]

    shared = port if options.accept == "there" else 0
    started = [start(options.of, n, shared, options.work) for n in range(options.workers)]
    controls = [control for _, control in started]
    for control in controls:
        control.settimeout(60)  # a worker that fails says so on standard error, not here
        control.recv(1)
        control.settimeout(None)
    if options.accept == "here":
        listening.listen(1000)
        accepting = threading.Thread(target=hand_over, args=(listening, controls))
        accepting.start()
    print(port, flush=True)

    try:
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    if options.accept == "here":
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
    listening.close()
    for wait, control in started:
        control.close()
        wait()
    if options.of == "interpreters" and sys.version_info < (3, 13):
        os._exit(0)  # nor at the end, see call_in_interpreter()


if __name__ == "__main__":
    main()
