"""The page of a trace, in headless Chromium: rows, zoom, search, what a click shows, no network."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers import chromium

import ctask

pytestmark = [
    pytest.mark.ctask_only,
    pytest.mark.slow,
    pytest.mark.skipif(chromium.FOUND is None, reason="there is no chromium here"),
]

EVIL = "</script><script>document.title = 'owned'</script><!-- <script>"

UNNAMED = 3  # main(), and two that a runner ends with


async def worker(queue):
    while await queue.get():
        await ctask.sleep(0.002)


async def main():
    queue = ctask.Queue(2)
    workers = [ctask.create_task(worker(queue), name=f"worker {i}") for i in range(3)]
    ctask.create_task(blocks(), name="blocks")
    odd = ctask.create_task(ctask.sleep(0.001), name=EVIL)
    for _ in range(6):
        await queue.put(1)
    for _ in workers:
        await queue.put(0)
    await asyncio.gather(odd, *workers)


async def blocks():
    time.sleep(0.12)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with ctask.trace(folder / "out.html"):
        ctask.run(main())
    with chromium.Page(folder / "out.html", folder / "profile") as shown:
        yield shown


@pytest.fixture(autouse=True)
def as_at_first(page):
    page.js(
        "document.getElementById('search').value = ''; document.getElementById('search').oninput()"
    )
    page.js("document.getElementById('fit').click()")
    yield
    assert page.exceptions == []


def search(page, words):
    page.js("document.getElementById('search').focus(); document.getElementById('search').select()")
    page.call("Input.insertText", text=words)


def where(page, span):
    """Where a span is drawn, in the window."""
    return page.js(
        f"(() => {{ const box = document.getElementById('canvas').getBoundingClientRect(), "
        f"at = timeline.where({span}); return [at.x + box.left, at.y + box.top]; }})()"
    )


def detail(page):
    return page.js("document.getElementById('detail').innerText")


def test_a_row_for_each_task(page):
    names = page.js("timeline.rows()")
    named = [name for name in names if not name.startswith("Task-")]
    assert sorted(named) == sorted([EVIL, "blocks", *(f"worker {i}" for i in range(3))])
    assert len(names) == len(named) + UNNAMED
    assert page.js("timeline.lanes()") == ["loop 0 MainThread"]


def test_what_a_task_is_called_is_no_html(page):
    assert page.js("document.title") == "ctask trace"
    assert page.js("document.scripts.length") == 2


def test_nothing_is_fetched(page):
    assert len(page.requested) == 1
    assert page.requested[0].startswith("file:")


def test_zoom(page):
    total = page.js("timeline.view().total")
    assert page.js("timeline.view().span") >= total
    page.js("document.getElementById('in').click()")
    assert page.js("timeline.view().span") < 0.7 * total
    before = page.js("timeline.view().span")
    x, y = 600, 300
    page.wheel(x, y, -200, ctrl=True)
    page.wait_for(f"timeline.view().span < 0.6 * {before}")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="0", text="0")
    page.wait_for(f"timeline.view().span >= {total}")


def test_search_finds_tasks_and_functions(page):
    search(page, "worker 1")
    page.wait_for("timeline.rows().length === 1")
    assert page.js("document.getElementById('found').textContent") == "1 of 8 tasks"
    search(page, "SLEEP")
    page.wait_for("timeline.rows().length === 4")
    search(page, "no such thing")
    page.wait_for("timeline.rows().length === 0")


def test_a_blocking_step_is_red(page):
    assert set(page.js("timeline.blocking()")) == {"blocks"}
    (span,) = page.js("timeline.spans('blocks')")
    x, y = where(page, span)
    page.js("timeline.paint()")
    pixel = page.js(
        "(() => { const c = document.getElementById('canvas'), box = c.getBoundingClientRect();"
        f"const pen = c.getContext('2d'), x = {x} - box.left + 60, y = {y} - box.top;"
        "return Array.from(pen.getImageData(x, y, 1, 1).data); })()"
    )
    assert pixel[0] > 180
    assert pixel[1] < 80
    assert pixel[2] < 80


def test_a_click_shows_stack_and_cause(page):
    (span,) = page.js("timeline.spans('blocks')")
    page.click(*where(page, span))
    page.wait_for("document.getElementById('detail').innerText.includes('Woken by')")
    said = detail(page)
    assert "blocking" in said
    assert "returned" in said
    step = page.js("timeline.spans('worker 0')")[0]
    page.js(f"timeline.go({step})")
    page.click(*where(page, step))
    page.wait_for("document.getElementById('detail').innerText.includes('waits for sleep')")
    assert f"worker {__file__}:" in " ".join(detail(page).split())


def test_a_click_on_a_wait_shows_what_for(page):
    first = page.js("timeline.spans('worker 0')")[0]
    page.js(f"timeline.go({first})")
    page.js("document.getElementById('fit').click()")
    (block,) = page.js("timeline.spans('blocks')")
    x, _ = where(page, block)
    _, y = where(page, first)
    page.click(x, y)  # while the loop was blocked
    page.wait_for("document.getElementById('detail').innerText.includes('waits for sleep')")
    assert "worker 0 waits for sleep" in detail(page)
    assert "ready for" in detail(page)


def test_dark(page):
    page.dark()
    page.wait_for("getComputedStyle(document.body).backgroundColor === 'rgb(21, 24, 27)'")
    pen = "document.getElementById('canvas').getContext('2d')"
    page.wait_for(f"{pen}.getImageData(600, 400, 1, 1).data[0] < 60")


def test_ten_thousand_tasks(tmp_path):
    async def many():
        await asyncio.gather(
            *(ctask.create_task(ctask.sleep(0.01), name=f"task {i}") for i in range(10_000))
        )

    with ctask.trace(tmp_path / "many.html"):
        ctask.run(many())
    with chromium.Page(tmp_path / "many.html", tmp_path / "profile") as page:
        assert len(page.js("timeline.rows()")) == 10_000 + UNNAMED
        took = page.js(
            "(() => { const t = performance.now(); for (let i = 0; i < 5; i++) timeline.paint();"
            "return (performance.now() - t) / 5; })()"
        )
        search(page, "task 9999")
        page.wait_for("timeline.rows().length === 1")
        assert took < 2000  # milliseconds, on the slowest of machines
        assert page.exceptions == []
