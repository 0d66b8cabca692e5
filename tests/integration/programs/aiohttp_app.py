"""An aiohttp server in a process of its own: aiohttp_app.py FACTORY [CHAIN KEY]"""

import importlib
import ssl
import sys

import which
from aiohttp import web


async def hello(request):
    return web.Response(text="hello")


async def about(request):
    return web.json_response({"loop": which.loop()})


async def announce(app):
    yield
    print("cleaned up", flush=True)


def main(factory, *files):
    app = web.Application()
    app.add_routes([web.get("/", hello), web.get("/about", about)])
    app.cleanup_ctx.append(announce)
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    module, _, name = factory.partition(":")
    loop = getattr(importlib.import_module(module), name)()

    web.run_app(
        app,
        host="127.0.0.1",
        port=0,
        loop=loop,
        ssl_context=context,
        access_log=None,
        print=lambda text: print(text, flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
