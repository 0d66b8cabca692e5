/* What the module's state has for transports and sockets (ctask.h). */

#ifndef CTASK_IO_STATE_H
#define CTASK_IO_STATE_H

#include "base/compat.h"

#define IO_NAMES(X)                \
    X(Popen)                       \
    X(Process)                     \
    X(SubprocessStreamProtocol)    \
    X(_HAVE_POSIX_SPAWN_CLOSEFROM) \
    X(_USE_POSIX_SPAWN)            \
    X(_active)                     \
    X(_args)                       \
    X(_attach)                     \
    X(_call)                       \
    X(_call_connection_lost)       \
    X(_cleanup)                    \
    X(_close_running)              \
    X(_closed)                     \
    X(_connection_lost)            \
    X(_detach)                     \
    X(_ensure_fd_no_transport)     \
    X(_exit_waiters)               \
    X(_made)                       \
    X(_make_subprocess_transport)  \
    X(_maybe_close_transport)      \
    X(_paused)                     \
    X(_pending_calls)              \
    X(_pid)                        \
    X(_pipe_fds)                   \
    X(_pipes)                      \
    X(_proc)                       \
    X(_protocol)                   \
    X(_returncode)                 \
    X(_start_serving)              \
    X(_transport)                  \
    X(_waiting)                    \
    X(_watcher)                    \
    X(get_child_watcher)           \
    X(get_event_loop_policy)       \
    X(buffer_updated)              \
    X(connection_lost)             \
    X(connection_made)             \
    X(data)                        \
    X(data_received)               \
    X(datagram_received)           \
    X(disconnected)                \
    X(eof_received)                \
    X(error_received)              \
    X(exc_info)                    \
    X(file_actions)                \
    X(get_buffer)                  \
    X(get_extra_info)              \
    X(gettimeout)                  \
    X(is_closing)                  \
    X(pause_writing)               \
    X(peername)                    \
    X(pipe)                        \
    X(posix_spawn)                 \
    X(process_exited)              \
    X(protocol)                    \
    X(resume_writing)              \
    X(returncode)                  \
    X(setsigdef)                   \
    X(socket)                      \
    X(sockname)                    \
    X(subprocess_exec)             \
    X(transport)                   \
    X(write)
#define IO_IMPORTS(X)                                                               \
    X(stock_DatagramTransport, "asyncio.transports", "DatagramTransport")           \
    X(stock_ChildTransport, "asyncio.unix_events", "_UnixSubprocessTransport")      \
    X(stock_create_subprocess_exec, "asyncio.subprocess", "create_subprocess_exec") \
    X(stock_Transport, "asyncio.transports", "_FlowControlMixin")                   \
    X(stock_ReadTransport, "asyncio.transports", "ReadTransport")                   \
    X(BufferedProtocol, "asyncio.protocols", "BufferedProtocol")                    \
    X(TransportSocket, "asyncio.trsock", "TransportSocket")                         \
    X(base_socket_type, "_socket", "socket")                                        \
    X(Server, "asyncio.base_events", "Server")                                      \
    X(SendfileMode, "asyncio.constants", "_SendfileMode")

#define IO_TYPES(X)  \
    X(StreamType)    \
    X(AcceptorType)  \
    X(ReadPipeType)  \
    X(WritePipeType) \
    X(ProcessType)   \
    X(DatagramType)

/* socket_names: the socket module's globals.  child_parts: what starts children (process.c), NULL if nothing does.
   subprocess_parts, subprocess_recipes: asyncio's classes (subprocess.c). */
#define IO_OBJECTS(X)     \
    X(child_parts)        \
    X(spawn_recipe)       \
    X(spawn_kwnames)      \
    X(subprocess_parts)   \
    X(subprocess_recipes) \
    X(socket_names)       \
    X(socket_type)        \
    X(stock_get_extra_info)

#define IO_FREELISTS(X)

/* What is known of socket.socket (socketobj.c): offsets of its members, 0 where they are not as they should. */
typedef struct {
    Py_ssize_t fd;
    Py_ssize_t family;
    Py_ssize_t type;
    Py_ssize_t proto;
    unsigned int version; // tp_version_tag for which its methods are the socket module's own
} socket_layout;

struct io_state {
    socket_layout sockets;
    struct {
        unsigned int version; // tp_version_tag of StreamType for which `own` holds
        char own; // nobody has replaced write() or is_closing() of the class
    } streams;
    unsigned int popen_version; // tp_version_tag of subprocess.Popen when it was last looked at
    unsigned int subprocess_versions[2]; // of asyncio's protocol and Process when they were last looked at
    const struct sink_kind *sinks[2]; // of protocols (sink.h); NULL: no more
    int server_knows_clients; // 3.13+: Server._attach() takes the transport
};

#endif
