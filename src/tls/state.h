/* What the module's state has for TLS (ctask.h). */

#ifndef CTASK_TLS_STATE_H
#define CTASK_TLS_STATE_H

#include "base/compat.h"

#define TLS_NAMES(X)            \
    X(_check_handshake_timeout) \
    X(_check_shutdown_timeout)  \
    X(_force_close)             \
    X(_msg_callback)            \
    X(_resume)                  \
    X(_sslobj)                  \
    X(_start_shutdown)          \
    X(cipher)                   \
    X(compression)              \
    X(do_handshake)             \
    X(getpeercert)              \
    X(keylog_filename)          \
    X(peercert)                 \
    X(pending)                  \
    X(read)                     \
    X(ssl_object)               \
    X(sslcontext)               \
    X(unwrap)                   \
    X(wrap_bio)

#define TLS_IMPORTS(X)

#define TLS_TYPES(X) \
    X(TlsType)       \
    X(TlsTransportType)

/* Of Python's ssl, NULL until the first TLS connection; ssl_names: its globals. */
#define TLS_OBJECTS(X)        \
    X(ssl_names)              \
    X(ssl_again)              \
    X(ssl_SSLError)           \
    X(ssl_CertificateError)   \
    X(ssl_SSLZeroReturnError) \
    X(ssl_MemoryBIO)          \
    X(ssl_SSLObject)          \
    X(ssl_socket_type)        \
    X(ssl_bio_type)

#define TLS_FREELISTS(X)

struct tls_state {
    struct tls_buffers *buffers; // owned; NULL until the first TLS connection
    const struct openssl_api *openssl; // NULL if OpenSSL is not called directly
    int openssl_known; // 0 until it was looked for, then 1 or -1
};

#endif
