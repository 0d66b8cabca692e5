"""nest_asyncio and nest_asyncio2, which replace methods of a running loop's class."""

import json
import subprocess
import sys

import pytest
from support import STOCK

PROGRAM = """\
import asyncio, socket, sys
how, name = sys.argv[1:]
nest = __import__(name)
# From 3.14 on, nest_asyncio takes the place of a current_task() that nothing asks any more.
task_is_right = name == "nest_asyncio2" or sys.version_info < (3, 14)
if how == "asyncio":
    factory = asyncio.SelectorEventLoop
else:
    import ctask
    factory = ctask.new_event_loop
    if how == "install":
        ctask.install()


async def sleeps(seconds, value):
    await asyncio.sleep(seconds)
    return value


async def talks():
    a, b = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=a)
    _, other = await asyncio.open_connection(sock=b)
    other.write(b"line\\n")
    line = await reader.readline()
    for each in (writer, other):
        each.close()
        await each.wait_closed()
    return line


def several():
    async def all_of_them():
        async with asyncio.timeout(10):
            return await asyncio.gather(*(sleeps(0.001 * n, n) for n in range(3)))

    return asyncio.run(all_of_them())


async def times_out():
    try:
        await asyncio.wait_for(sleeps(10, None), 0.01)
    except asyncio.TimeoutError:
        return "timed out"


async def main(loop):
    nest.apply(loop)
    me = asyncio.current_task()
    ticks = []

    async def beats():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.001)

    beat = asyncio.ensure_future(beats())
    assert loop.run_until_complete(sleeps(0.01, 5)) == 5
    assert asyncio.run(sleeps(0.01, 6)) == 6
    assert len(ticks) > 3
    assert several() == [0, 1, 2]
    if task_is_right:
        assert asyncio.run(times_out()) == "timed out"
    assert asyncio.run(talks()) == b"line\\n"
    assert asyncio.run(asyncio.to_thread(lambda: 7)) == 7
    if task_is_right:
        assert asyncio.current_task() is me

    async def deeper(n):
        return asyncio.run(deeper(n - 1)) + 1 if n else 0

    assert asyncio.run(deeper(5)) == 5
    beat.cancel()
    assert await sleeps(0.001, 8) == 8
    print("nested")


loop = factory()
asyncio.set_event_loop(loop)
loop.run_until_complete(main(loop))
assert loop.run_until_complete(sleeps(0.001, 9)) == 9
if task_is_right:
    loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
print("done")
"""

CELLS = """\
import asyncio, nest_asyncio2
nest_asyncio2.apply()
print(type(asyncio.get_running_loop()).__module__)
---
async def value(n):
    await asyncio.sleep(0.01)
    return n
print(asyncio.run(value(1)))
---
loop = asyncio.get_running_loop()
print(loop.run_until_complete(asyncio.gather(value(2), value(3))))
---
print(await value(4))
""".split("---\n")


@pytest.mark.parametrize("name", ["nest_asyncio", "nest_asyncio2"])
@pytest.mark.parametrize("how", ["asyncio"] if STOCK else ["loop", "install"])
def test_nested_runs(name, how):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, name], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "nested\ndone\n", done.stdout + done.stderr


def test_nested_runs_in_a_notebook(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    kernel = tmp_path / "kernels" / "nested"
    kernel.mkdir(parents=True)
    under = [] if STOCK else ["-m", "ctask"]
    argv = [sys.executable, *under, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "nested", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    nbclient.NotebookClient(notebook, kernel_name="nested", timeout=60).execute()
    printed = [cell.outputs[0].text.strip() for cell in notebook.cells]
    assert printed[1:] == ["1", "[2, 3]", "4"]
    assert STOCK or printed[0] == "ctask._loop"
