"""What has raised is seen to before anything else is called: no Python code runs meanwhile."""

import pytest

pytestmark = pytest.mark.ctask_only

# A call of C in Python code that runs although something has raised is a SystemError.
RAISES = """
asked = []

class Raises:
    '''This attribute, or its truth, raises.'''
    def __init__(self, name=None):
        object.__setattr__(self, "name", name)
    def __getattribute__(self, name):
        asked.append(name)
        if name == object.__getattribute__(self, "name"):
            raise ValueError(name)
        return 1
    def __bool__(self):
        return self.bool == 1
"""


@pytest.mark.parametrize(
    "module, name, attribute",
    [
        ("_asyncio", "Future", "set_exception"),
        ("asyncio.taskgroups", "TaskGroup", "__aenter__"),
    ],
)
def test_the_import_fails_at_the_first_that_is_missing(script, module, name, attribute):
    done = script(
        f"""
        import asyncio, sys
        module = sys.modules[{module!r}]
        asked = []

        class Meta(type):
            def __getattribute__(cls, name):
                by_c = "importlib" in sys._getframe(1).f_code.co_filename
                if by_c and (asked or name == {attribute!r}):
                    asked.append(name)
                    raise AttributeError(name)
                return type.__getattribute__(cls, name)

        setattr(module, {name!r}, Meta({name!r}, (getattr(module, {name!r}),), {{}}))
        try:
            import ctask._ctask
        except AttributeError:
            pass
        print(asked)
        """,
        bare=True,
    )
    assert done.out == f"['{attribute}']\n"


def test_tls_whose_host_name_has_no_truth(script):
    done = script(f"""
{RAISES}
loop, context = impl.new_event_loop(), Raises()
try:
    impl.SSLProtocol(loop, asyncio.Protocol(), context, None, False, Raises("bool"))
except ValueError as exc:
    print(exc, asked)
loop.close()
""")
    assert done.out == "bool ['bool']\n"


def test_tls_whose_context_does_not_say_where_keys_are_logged(script):
    done = script("""
import ssl

class Context(ssl.SSLContext):
    @property
    def keylog_filename(self):
        asked.append("keylog_filename")
        raise ValueError

    @property
    def _msg_callback(self):
        asked.append("_msg_callback")
        return str(len(asked))

asked = []
loop = impl.new_event_loop()
context = Context(ssl.PROTOCOL_TLS_CLIENT)
protocol = impl.SSLProtocol(loop, asyncio.Protocol(), context, None, False, "x")
protocol._app_transport.close()
print(asked, protocol._direct)
loop.close()
""")
    assert done.out == "['keylog_filename'] False\n"


def test_tls_with_another_module_in_the_place_of_ssls(script):
    done = script(f"""
import ssl, sys
{RAISES}
sys.modules["_ssl"] = Raises("_SSLSocket")
loop = impl.new_event_loop()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
protocol = impl.SSLProtocol(loop, asyncio.Protocol(), context, None, False, "x")
protocol._app_transport.close()
print(asked[asked.index("_SSLSocket"):], protocol._direct)
loop.close()
""")
    assert done.out == "['_SSLSocket'] False\n"


def test_a_server_without_descriptors_whose_loop_serves_no_more(script):
    done = script("""
import errno, resource, socket
asked = []

class Loop(impl.EventLoop):
    def __getattribute__(self, name):
        if watch and name in ("_start_serving", "call_later"):
            asked.append(name)
            if name == "_start_serving":
                raise AttributeError(name)
        return super().__getattribute__(name)

watch = False
loop = Loop()
loop.set_exception_handler(lambda loop, context: None)
server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
client = socket.create_connection(server.sockets[0].getsockname())
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
loop.call_later(0.05, loop.stop)
watch = True
try:
    loop.run_forever()
except AttributeError:
    pass
print(set(asked))
""")
    assert done.out == "{'_start_serving'}\n"


def test_the_current_task_may_leave_while_another_is_shown(script):
    # A step ends, and another task is the current one: _asyncio says so, and shows both.
    script("""
    tasks = asyncio.tasks
    class Ghost:
        def __repr__(self):
            return "ghost"
        def __del__(self):
            gone.append(1)
    class Shown(impl.Task):
        def __repr__(self):
            if current:
                tasks._leave_task(loop, current.pop())  # the last reference
                blocks.extend(bytearray(b"x" * size) for size in range(16, 128) for _ in range(9))
            return "shown"
    gone, current, blocks = [], [], []
    async def main():
        tasks._leave_task(loop, asyncio.current_task())
        current.append(Ghost())
        tasks._enter_task(loop, current[0])
        await asyncio.sleep(0)
    loop = impl.new_event_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))
    task = Shown(main(), loop=loop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [str(report) for report in reports] in (
        ["Leaving task shown does not match the current task ghost."],
        ["Invalid attempt to leave task shown while task ghost is entered."],  # 3.14
    ), reports
    assert gone == [1]
    loop.run_until_complete(task)
    loop.close()
    """)


def test_new_of_a_class_behind_a_core_is_not_compared(script):
    done = script(
        """
        class New:
            def __eq__(self, other):
                raise ValueError("compared")
            def __call__(self, cls):
                return sys.exception()

        class Behind(Exception):
            __new__ = New()

        class Lock(impl.Lock, Behind):
            pass

        print(Lock())
        """,
    )
    assert done.out == "None\n"


def test_the_import_beside_an_as_completed_without_globals(script):
    done = script(
        """
        import asyncio.tasks

        class Function:
            __code__ = asyncio.tasks.as_completed.__code__
            __globals__ = None

        asyncio.tasks.as_completed = Function()
        try:
            import ctask
        except (AttributeError, TypeError):
            pass
        print("done")
        """,
        bare=True,
    )
    assert done.out == "done\n"


def test_the_import_beside_a_queue_that_is_no_class(script):
    done = script(
        """
        import asyncio.queues

        class Queue:
            def __getattr__(self, name):
                return print

        asyncio.queues.Queue = Queue()
        try:
            import ctask._ctask
        except TypeError:
            pass
        print("done")
        """,
        bare=True,
    )
    assert done.out == "done\n"
