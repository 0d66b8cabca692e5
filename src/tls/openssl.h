/* The OpenSSL that Python's ssl module is linked with, found at run time (openssl.c).

   No header and no library of OpenSSL is needed to build: what is used is declared here.  An SSL* is taken
   out of an ssl.SSLObject only after it has been checked that it is where we look for it. */

#ifndef CTASK_OPENSSL_H
#define CTASK_OPENSSL_H

#include "tasks/tasks.h"

typedef struct ssl_st SSL;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;

#define OPENSSL_FUNCTIONS(X)                                                      \
    X(unsigned long, OpenSSL_version_num, (void))                                 \
    X(unsigned long, ERR_peek_error, (void))                                      \
    X(void, ERR_clear_error, (void))                                              \
    X(int, SSL_read, (SSL *, void *, int))                                        \
    X(int, SSL_write, (SSL *, const void *, int))                                 \
    X(int, SSL_pending, (const SSL *))                                            \
    X(int, SSL_get_error, (const SSL *, int))                                     \
    X(int, SSL_get_shutdown, (const SSL *))                                       \
    X(void *, SSL_get_ex_data, (const SSL *, int))                                \
    X(BIO *, SSL_get_rbio, (const SSL *))                                         \
    X(BIO *, SSL_get_wbio, (const SSL *))                                         \
    X(void, SSL_set_bio, (SSL *, BIO *, BIO *))                                   \
    X(int, BIO_get_new_index, (void))                                             \
    X(BIO_METHOD *, BIO_meth_new, (int, const char *))                            \
    X(int, BIO_meth_set_read, (BIO_METHOD *, int (*)(BIO *, char *, int)))        \
    X(int, BIO_meth_set_write, (BIO_METHOD *, int (*)(BIO *, const char *, int))) \
    X(int, BIO_meth_set_ctrl, (BIO_METHOD *, long (*)(BIO *, int, long, void *))) \
    X(BIO *, BIO_new, (const BIO_METHOD *))                                       \
    X(int, BIO_free, (BIO *))                                                     \
    X(int, BIO_up_ref, (BIO *))                                                   \
    X(void, BIO_set_init, (BIO *, int))                                           \
    X(void, BIO_set_data, (BIO *, void *))                                        \
    X(void *, BIO_get_data, (BIO *))                                              \
    X(void, BIO_set_flags, (BIO *, int))                                          \
    X(void, BIO_clear_flags, (BIO *, int))

typedef struct openssl_api {
#define X(result, name, args) result(*name) args;
    OPENSSL_FUNCTIONS(X)
#undef X
    BIO_METHOD *method; // of our BIOs
} openssl_api;

#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_ERROR_ZERO_RETURN 6
#define SSL_RECEIVED_SHUTDOWN 2

/* What an SSL* reads from and writes to.  OpenSSL calls our BIO also while Python's ssl has released the
   interpreter lock, so nothing here is a Python object or shared between connections; the exception is a
   buffer that tls.c lends for the length of a call that keeps the lock. */
typedef struct {
    const char *in; // what is to be read: in `kept`, or the caller's bytes for the length of its call
    size_t in_len;
    char *kept; // owned
    size_t kept_size;
    char *out; // owned unless lent; what was written, from out_start to out_end
    size_t out_start;
    size_t out_end;
    size_t out_size;
    char out_lent;
    char no_memory; // a write failed for want of memory
} openssl_pipe;

/* The SSL* in `sslobj`, from now on reading from and writing to `pipe` by way of *bio; NULL without an
   exception where that cannot be done, and then nothing has changed.  The SSL* lives as long as *owner; both
   *bio and *owner are new references. */
PART SSL *openssl_attach(ctask_state *st, PyObject *sslobj, PyObject *incoming, PyObject *outgoing,
                         openssl_pipe *pipe, BIO **bio, PyObject **owner);
/* Would nobody notice if OpenSSL's functions are called in the place of the methods of `sslobj`?  Never raises. */
PART int openssl_unseen(ctask_state *st, PyObject *sslobj);
/* To be called before `pipe` goes: the SSL* may live longer. */
PART void openssl_detach(openssl_pipe *pipe, BIO *bio);
/* Have `data` read next, by way of a copy if something is left from before.  -ENOMEM. */
PART int openssl_feed(openssl_pipe *pipe, const char *data, size_t n);
/* The caller's bytes go: keep a copy of what was not read.  -ENOMEM. */
PART int openssl_keep(openssl_pipe *pipe);
/* A buffer of the pipe's own for what was written. -ENOMEM. */
PART int openssl_own_output(openssl_pipe *pipe, size_t more);

#endif
