/* What the module's state has for transports and sockets (ctask.h). */

#ifndef CTASK_IO_STATE_H
#define CTASK_IO_STATE_H

#include "base/compat.h"

#define IO_NAMES(X)            \
    X(_attach)                 \
    X(_call_connection_lost)   \
    X(_detach)                 \
    X(_ensure_fd_no_transport) \
    X(_start_serving)          \
    X(buffer_updated)          \
    X(connection_lost)         \
    X(connection_made)         \
    X(data)                    \
    X(data_received)           \
    X(datagram_received)       \
    X(eof_received)            \
    X(error_received)          \
    X(exc_info)                \
    X(get_buffer)              \
    X(get_extra_info)          \
    X(gettimeout)              \
    X(is_closing)              \
    X(pause_writing)           \
    X(peername)                \
    X(pipe)                    \
    X(protocol)                \
    X(resume_writing)          \
    X(socket)                  \
    X(sockname)                \
    X(transport)               \
    X(write)

#define IO_IMPORTS(X)                                                     \
    X(stock_DatagramTransport, "asyncio.transports", "DatagramTransport") \
    X(stock_Transport, "asyncio.transports", "_FlowControlMixin")         \
    X(stock_ReadTransport, "asyncio.transports", "ReadTransport")         \
    X(BufferedProtocol, "asyncio.protocols", "BufferedProtocol")          \
    X(TransportSocket, "asyncio.trsock", "TransportSocket")               \
    X(base_socket_type, "_socket", "socket")                              \
    X(Server, "asyncio.base_events", "Server")                            \
    X(SendfileMode, "asyncio.constants", "_SendfileMode")

#define IO_TYPES(X)  \
    X(StreamType)    \
    X(AcceptorType)  \
    X(ReadPipeType)  \
    X(WritePipeType) \
    X(DatagramType)

/* socket_names: the socket module's globals. */
#define IO_OBJECTS(X) \
    X(socket_names)   \
    X(socket_type)    \
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
    const struct sink_kind *sinks[2]; // of protocols (sink.h); NULL: no more
    int server_knows_clients; // 3.13+: Server._attach() takes the transport
};

#endif
