"""What is run, and what is left out and why.

Data and the functions that read it.  Used by the parent (which modules are there) and by the
child (which tests of a module are left out); imports nothing of asyncio.
"""

import fnmatch
import os
import re
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

PREFIX = "test.test_asyncio."

# A module that an interpreter lacks is passed over silently.
TASKS_MODULES = [
    "test_tasks",
    "test_futures",
    "test_futures2",
    "test_eager_task_factory",
    "test_taskgroups",
    "test_timeouts",
    "test_locks",
    "test_queues",
    "test_waitfor",
    "test_runners",
    "test_staggered",
    "test_threads",
    "test_context",
    "test_pep492",
    "test_graph",
    "test_free_threading",
    # Not about tasks as such, but every one of their tests runs on the candidate's Task and
    # Future under the stock loop.
    "test_base_events",
    "test_events",
    "test_streams",
    "test_subprocess",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_sendfile",
    "test_buffered_proto",
    "test_unix_events",
    "test_selector_events",
    "test_sslproto",
    "test_ssl",
    # Outside test.test_asyncio.
    "test.test_context",
    "test.test_asyncgen",
    "test.test_coroutines",
    "test.test_contextlib_async",
    "test.test_unittest.test_async_case",
    "unittest.test.test_async_case",  # where 3.11 has it
]

LOOP_MODULES = [
    "test_base_events",
    "test_events",
    "test_sock_lowlevel",
    "test_streams",
    "test_server",
    "test_server_context",
    "test_buffered_proto",
    "test_sendfile",
    "test_sslproto",
    "test_ssl",
    "test_subprocess",
    "test_unix_events",
    "test_runners",
    "test_taskgroups",
    "test_eager_task_factory",
    "test_tasks",
    "test_futures",
    "test_futures2",
    "test_timeouts",
    "test_locks",
    "test_queues",
    "test_waitfor",
    "test_staggered",
    "test_threads",
    "test_context",
    "test_pep492",
    "test_graph",
    "test_free_threading",
    "test.test_asyncgen",
    "test.test_contextlib_async",
    "test.test_unittest.test_async_case",
    "unittest.test.test_async_case",
]

# Never run, in either layer:
#   test_windows_events, test_windows_utils, test_proactor_events  Windows, or the proactor loop
#       on mocks
#   test_transports, test_protocols   abstract base classes only
#   test_tools                        asyncio.tools on synthetic data
# and not in layer loop:
#   test_selector_events   every test drives CPython's BaseSelectorEventLoop and its transport
#       classes on mock sockets; no event loop runs in it


class Exclusion(NamedTuple):
    layer: str
    reason: str
    patterns: tuple[str, ...]  # fnmatch patterns of test ids


# Each was checked with --no-exclusions: the stock loop passes it, and other native loops fail
# it for the reason given.  Layer tasks has none but the classes named in excluded(), below.
EXCLUDE = [
    # -- the same loop again, or a part of CPython that another loop has no use for
    Exclusion(
        "loop",
        "same tests as EPollEventLoopTests, for another selector",
        ("*.PollEventLoopTests.*", "*.SelectEventLoopTests.*"),
    ),
    Exclusion(
        "loop",
        "same tests as SubprocessThreadedWatcherTests, for another of CPython's child watchers",
        ("test_subprocess.Subprocess[FPS]*WatcherTests.*",),
    ),
    Exclusion(
        "loop",
        "CPython's child watchers",  # removed in 3.14
        (
            "test_unix_events.PolicyTests.test_child_watcher_replace_*",
            "test_subprocess.GenericWatcherTests.*inactive_watcher",
            "test_unix_events.PidfdChildWatcherTests.*",
        ),
    ),
    # -- the pure-Python reference functions, put into asyncio's modules by the test; a native
    #    loop has bound the C functions
    Exclusion(
        "loop",
        "monkeypatches asyncio.events with the pure-Python reference functions",
        ("test_events.TestPyGetEventLoop.*_returns_running_loop*",),
    ),
    Exclusion(
        "loop",
        "monkeypatches asyncio with the pure-Python reference Task and functions",
        ("test_graph.TestCallStackPy.*",),
    ),
    # -- private attributes of CPython's loop, transports or server
    Exclusion("loop", "loop._watcher", ("test_subprocess.*.test_watcher_implementation",)),
    Exclusion(
        "loop",
        "loop._watcher._threads",
        ("test_subprocess.*.test_pid_not_reaped_before_exit_published",),
    ),
    Exclusion("loop", "loop._accept_connection", ("test_base_events.*.test_accept_connection_*",)),
    Exclusion(
        "loop",
        "loop._make_ssl_transport",
        ("test_base_events.*.test_create_connection_ssl_server_hostname_default",),
    ),
    Exclusion(
        "loop",
        "loop._make_socket_transport",
        ("test_sslproto.*.test_connection_lost_when_busy",),
    ),
    Exclusion("loop", "loop._csock, loop._ssock", ("test_events.*.test_internal_fds",)),
    Exclusion("loop", "loop._stop_serving", ("test_events.*.test_prompt_cancellation",)),
    Exclusion("loop", "loop._run_once, loop._selector", ("test_events.*.test_timeout_rounding",)),
    Exclusion(
        "loop",
        "loop._start_serving mocked; would bind 1.2.3.4",
        ("test_events.*.test_create_server_multiple_hosts_ipv?",),
    ),
    Exclusion(
        "loop",
        "replaces loop._sendfile_native",
        (
            "test_sendfile.*.test_sendfile_force_fallback",
            "test_sendfile.*.test_sendfile_force_unsupported_native",
            "test_sendfile.*.test_sendfile_fallback_close_peer_in_the_middle_of_receiving",
        ),
    ),
    Exclusion(
        "loop",
        "a mock transport with _sendfile_compatible",
        ("test_sendfile.*.test_sendfile_no_fallback_for_fallback_transport",),
    ),
    Exclusion(
        "loop",
        "loop._sock_sendfile_native",
        ("test_unix_events.SelectorEventLoopUnixSockSendfileTests.*",),
    ),
    Exclusion(
        "loop",
        "loop._signal_handlers, asyncio.unix_events.signal mocked",
        (
            "test_unix_events.SelectorEventLoopSignalTests.test_[!a]*",
            "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler",
            "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler_[!c]*",
        ),
    ),
    Exclusion(
        "loop",
        "server._sockets, server._waiters",
        (
            "test_server.Selector*.test_start_server_1",
            "test_server.*.test_start_unix_server_1",
        ),
    ),
    Exclusion(
        "loop",
        "transport._sock",
        ("test_base_events.*.test_create_datagram_endpoint_sock_unix",),
    ),
    Exclusion(
        "loop",
        "transport._ssl_protocol",
        (
            "test_ssl.*.test_flush_before_shutdown",
            "test_ssl.*.test_remote_shutdown_receives_trailing_data_on_slow_socket",
        ),
    ),
    Exclusion(
        "loop",
        "transport._test__append_write_backlog",
        ("test_ssl.*.test_remote_shutdown_receives_trailing_data",),
    ),
    Exclusion(
        "loop",
        "transport._paused, transport._ssl_protocol",
        ("test_server_context.*.test_gh140947",),
    ),
    Exclusion("loop", "transport._wait", ("test_subprocess.*.test_close_kill_running",)),
    Exclusion(
        "loop",
        "process._transport._proc, mock pipe transports",
        ("test_subprocess.*.test_pause_reading",),
    ),
    # -- mocks of what CPython's loop is made of: names in asyncio's own implementation modules,
    #    or the socket and subprocess modules
    Exclusion("loop", "socket.getnameinfo mocked", ("test_base_events.*.test_getnameinfo",)),
    Exclusion(
        "loop",
        "asyncio.base_events.socket mocked",
        (
            "test_base_events.*.test_create_connection_multiple_errors*",
            "test_base_events.*.test_create_connection_timeout",
            "test_base_events.*.test_create_connection_ipv6_scope",
            "test_base_events.*.test_create_connection_ip_addr",
            "test_base_events.*.test_create_connection_no_inet_pton",
            "test_base_events.*.test_create_connection_service_name",
            "test_base_events.*.test_create_connection_bluetooth",
            "test_base_events.*.test_create_connection_transport_error_closes_sock",
            "test_base_events.*.test_create_connection_connect_non_os_err_close_err",
            "test_base_events.*.test_create_server_nosoreuseport",
            "test_base_events.*.test_create_server_soreuseport_only_defined",
            "test_base_events.*.test_create_server_cant_bind",
            "test_base_events.*.test_create_datagram_endpoint_no_addrinfo",
            "test_base_events.*.test_create_datagram_endpoint_socket_err",
            "test_base_events.*.test_create_datagram_endpoint_setblk_err",
            "test_base_events.*.test_create_datagram_endpoint_cant_bind",
            "test_base_events.*.test_create_datagram_endpoint_nosoreuseport",
            "test_base_events.*.test_create_datagram_endpoint_ip_addr",
        ),
    ),
    Exclusion(
        "loop",
        "asyncio.staggered.staggered_race mocked",
        ("test_base_events.*.test_create_connection_happy_eyeballs_empty_exceptions",),
    ),
    Exclusion(
        "loop",
        "loop.getaddrinfo replaced on the instance",
        ("test_base_events.*.test_create_server_empty_host",),
    ),
    Exclusion(
        "loop",
        "loop.sock_connect replaced on the instance",
        ("test_base_events.*.test_create_datagram_endpoint_connect_err",),
    ),
    Exclusion(
        "loop",
        "loop.connect_read_pipe, connect_write_pipe replaced on the instance",
        ("test_subprocess.*.test_subprocess_*pipe_cancelled",),
    ),
    Exclusion(
        "loop",
        "asyncio.base_events.logger mocked",
        ("test_base_events.*.test_log_slow_callbacks",),
    ),
    Exclusion(
        "loop",
        "asyncio.unix_events.socket mocked",
        ("test_unix_events.*.test_create_unix_server_bind_error",),
    ),
    Exclusion("loop", "subprocess.Popen mocked", ("test_subprocess.*.test_popen_error*",)),
    Exclusion(
        "loop",
        "asyncio.coroutines._is_debug_mode mocked",
        ("test_runners.RunTests.test_asyncio_run_debug",),
    ),
]


def exclusions() -> Iterator[tuple[str, str, str]]:
    """Each pattern that is left out: (layer, pattern, reason)."""
    for layer, reason, patterns in EXCLUDE:
        for pattern in patterns:
            yield layer, pattern, reason


def excluded(layer: str, test_id: str) -> str | None:
    """The reason for which this test is left out, or None."""
    layers = ("tasks", "loop") if layer in ("both", "installed") else (layer,)
    for lay, pattern, reason in exclusions():
        if lay in layers and fnmatch.fnmatchcase(test_id, pattern):
            return reason
    if layer in ("tasks", "installed"):
        cls = test_id.split(".")[-2] if "." in test_id else ""
        if "Py" in cls and not re.search(r"C(Sub)?(Task|Future)", cls):
            return "pure-Python reference class, never the candidate"
    return None


def short_id(test_id: str) -> str:
    return test_id.removeprefix(PREFIX)


def full_module(name: str) -> str:
    return name if "." in name else PREFIX + name


def module_exists(name: str) -> bool:
    """Is there such a test module?  Looks for the file; imports nothing."""
    stdlib = sysconfig.get_path("stdlib")
    return os.path.exists(os.path.join(stdlib, *full_module(name).split(".")) + ".py")


def modules_of(layer: str, wanted: list[str] | None) -> list[str]:
    """The test modules of a layer that this interpreter has, in order."""
    if layer == "both":
        modules = list(dict.fromkeys(TASKS_MODULES + LOOP_MODULES))
    else:
        modules = LOOP_MODULES if layer == "loop" else TASKS_MODULES
    return [m for m in modules if (wanted is None or m in wanted) and module_exists(m)]
