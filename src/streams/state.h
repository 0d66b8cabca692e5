/* What the module's state has for StreamReader and StreamWriter (ctask.h). */

#ifndef CTASK_STREAMS_STATE_H
#define CTASK_STREAMS_STATE_H

#include "base/compat.h"

#define STREAMS_NAMES(X)       \
    X(_drain_helper)           \
    X(_get_close_waiter)       \
    X(_maybe_resume_transport) \
    X(_stream_reader)          \
    X(_wait_for_data)          \
    X(_wakeup_waiter)          \
    X(feed_data)               \
    X(feed_eof)                \
    X(join)                    \
    X(pause_reading)           \
    X(readline)                \
    X(readuntil)               \
    X(resume_reading)          \
    X(set_exception)

#define STREAMS_IMPORTS(X)                                                   \
    X(IncompleteReadError, "asyncio.exceptions", "IncompleteReadError")      \
    X(LimitOverrunError, "asyncio.exceptions", "LimitOverrunError")          \
    X(stock_StreamReader, "asyncio.streams", "StreamReader")                 \
    X(stock_StreamReaderProtocol, "asyncio.streams", "StreamReaderProtocol") \
    X(stock_StreamWriter, "asyncio.streams", "StreamWriter")

#define STREAMS_TYPES(X)  \
    X(StreamReaderType)   \
    X(StreamProtocolType) \
    X(StreamWriterType)

#define STREAMS_OBJECTS(X) \
    X(newline)             \
    X(connection_made)     \
    X(stock_protocol_del)  \
    X(stock_protocol_init) \
    X(stock_reader_init)   \
    X(stock_writer_del)

#define STREAMS_FREELISTS(X)

struct streams_state {
    unsigned int plain_reader; // tp_version_tag of the last class of readers without overrides
    unsigned int plain_protocol; // the same for protocols
};

#endif
