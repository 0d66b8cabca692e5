"""A shop as an ASGI application, with three faults planted: README.md says where they are."""

import asyncio
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn

ORDERS = 3000
folder = Path(tempfile.mkdtemp(prefix="shop-"))
database, provider = folder / "shop.db", folder / "provider.sock"
selling = asyncio.Lock()
confirmed: dict[int, asyncio.Future[None]] = {}


# ---- the database: SQLite ----


def query(sql, *values):
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def fill():
    query("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO orders (customer, cents) VALUES (?, ?)",
            ((f"customer {i % 100}", i * 7919 % 10007) for i in range(ORDERS)),
        )


# ---- the payment provider: a stand-in, in this process ----


async def provide(reader, writer):
    """Take a customer's name and say "paid"; of the one who is called "slow" say nothing."""
    customer = await reader.readline()
    if customer != b"slow\n":
        writer.write(b"paid\n")
    await reader.read()
    writer.close()


async def charge(customer):
    reader, writer = await asyncio.open_unix_connection(provider)
    writer.write(f"{customer}\n".encode())
    answer = await reader.readline()
    writer.close()
    return answer == b"paid\n"


# ---- what the shop does ----


async def count(customer):
    """How many orders there are."""
    ((n,),) = await asyncio.to_thread(query, "SELECT count(*) FROM orders")
    return str(n)


async def rank(customer):
    """The order with the most that are smaller."""
    rows = query(
        "SELECT id, (SELECT count(*) FROM orders o WHERE o.cents < orders.cents) AS place"
        " FROM orders ORDER BY place DESC LIMIT 1"
    )
    return str(rows[0][0])


async def order(customer):
    """Charge the customer, keep the order, and ask for a confirmation of it."""
    async with selling:
        if not await charge(customer):
            return "not paid"
        insert = "INSERT INTO orders (customer, cents) VALUES (?, 100) RETURNING id"
        ((number,),) = await asyncio.to_thread(query, insert, customer)
    asyncio.create_task(confirm(number))
    return str(number)


async def confirm(number):
    """Wait for the customer to follow the link in a mail."""
    confirmed[number] = asyncio.get_running_loop().create_future()
    await confirmed[number]


PATHS = {"/count": count, "/rank": rank, "/order": order}


# ---- ASGI ----


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await live(receive, send)
    elif scope["type"] == "http":
        what = PATHS.get(scope["path"])
        (customer,) = parse_qs(scope["query_string"].decode()).get("customer", ["somebody"])
        body = "no such path" if what is None else await what(customer)
        status = 404 if what is None else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})


async def live(receive, send):
    await receive()
    await asyncio.to_thread(fill)
    async with await asyncio.start_unix_server(provide, provider):
        await send({"type": "lifespan.startup.complete"})
        await receive()
    shutil.rmtree(folder)
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = uvicorn.Server(uvicorn.Config(app, port=port, access_log=False))
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve())  # on Python 3.11 uvicorn.run() turns debug mode off
