/* The binding to OpenSSL: finds the library that Python's `_ssl` uses, checks that an SSLObject looks as we
   think, and is the BIO that stands in for the two ssl.MemoryBIO of a connection.

   Used by tls.c only.  Never raises: where anything is not as expected the answer is "not this way", and
   tls.c goes through Python's ssl. */

#include "tls/openssl.h"

#include <dlfcn.h>
#include <pthread.h>

#define BIO_TYPE_SOURCE_SINK 0x0400
#define BIO_CTRL_PENDING 10
#define BIO_CTRL_FLUSH 11
#define BIO_CTRL_DUP 12
#define BIO_CTRL_WPENDING 13
#define BIO_READ_AGAIN (0x01 | 0x08) // BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY
#define BIO_RETRY_FLAGS 0x0f
#define OLDEST_OPENSSL 0x10101000UL

/* What a linker would write into our GOT if we were linked with the library: the same addresses for every
   interpreter of the process, written once.  A BIO's functions get nothing but the BIO, so they could not
   find them anywhere else. */
static openssl_api api;

/* ---- our BIO ---- */

static int
bio_read(BIO *bio, char *buffer, int size)
{
    openssl_pipe *pipe = api.BIO_get_data(bio);
    api.BIO_clear_flags(bio, BIO_RETRY_FLAGS);
    if (pipe == NULL || size <= 0) {
        return 0;
    }
    if (pipe->in_len == 0) {
        api.BIO_set_flags(bio, BIO_READ_AGAIN);
        return -1;
    }
    size_t n = Py_MIN((size_t)size, pipe->in_len);
    memcpy(buffer, pipe->in, n);
    pipe->in += n;
    pipe->in_len -= n;
    return (int)n;
}

static int
bio_write(BIO *bio, const char *data, int size)
{
    openssl_pipe *pipe = api.BIO_get_data(bio);
    api.BIO_clear_flags(bio, BIO_RETRY_FLAGS);
    if (pipe == NULL || size <= 0) {
        return -1;
    }
    if (pipe->out_size - pipe->out_end < (size_t)size && openssl_own_output(pipe, (size_t)size) < 0) {
        pipe->no_memory = 1;
        return -1;
    }
    memcpy(pipe->out + pipe->out_end, data, (size_t)size);
    pipe->out_end += (size_t)size;
    return size;
}

static long
bio_ctrl(BIO *bio, int command, long Py_UNUSED(number), void *Py_UNUSED(pointer))
{
    openssl_pipe *pipe = api.BIO_get_data(bio);
    switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_PENDING:
        return pipe == NULL ? 0 : (long)pipe->in_len;
    case BIO_CTRL_WPENDING:
        return pipe == NULL ? 0 : (long)(pipe->out_end - pipe->out_start);
    default:
        return 0;
    }
}

/* ---- the pipe ---- */

PART int
openssl_own_output(openssl_pipe *pipe, size_t more)
{
    size_t length = pipe->out_end - pipe->out_start;
    if (!pipe->out_lent && pipe->out_size >= length + more && pipe->out_start > 0) {
        memmove(pipe->out, pipe->out + pipe->out_start, length);
    }
    else if (pipe->out_lent || pipe->out_size < length + more) {
        size_t size = length + more + (length + more) / 4;
        char *buffer = malloc(size);
        if (buffer == NULL) {
            return -ENOMEM;
        }
        if (length > 0) {
            memcpy(buffer, pipe->out + pipe->out_start, length);
        }
        if (!pipe->out_lent) {
            free(pipe->out);
        }
        pipe->out = buffer;
        pipe->out_size = size;
        pipe->out_lent = 0;
    }
    pipe->out_start = 0;
    pipe->out_end = length;
    return 0;
}

/* Room for `n` bytes in all in `kept`, what is to be read at its beginning. */
static int
keep_input(openssl_pipe *pipe, size_t n)
{
    if (n > pipe->kept_size) {
        n += pipe->kept_size / 2; // once it has to grow it may again
        char *buffer = malloc(n);
        if (buffer == NULL) {
            return -ENOMEM;
        }
        memcpy(buffer, pipe->in, pipe->in_len);
        free(pipe->kept);
        pipe->kept = buffer;
        pipe->kept_size = n;
    }
    else {
        memmove(pipe->kept, pipe->in, pipe->in_len);
    }
    pipe->in = pipe->kept;
    return 0;
}

PART int
openssl_feed(openssl_pipe *pipe, const char *data, size_t n)
{
    if (pipe->in_len == 0) {
        pipe->in = data;
        pipe->in_len = n;
        return 0;
    }
    if (keep_input(pipe, pipe->in_len + n) < 0) {
        return -ENOMEM;
    }
    memcpy(pipe->kept + pipe->in_len, data, n);
    pipe->in_len += n;
    return 0;
}

PART int
openssl_keep(openssl_pipe *pipe)
{
    if (pipe->in_len == 0) {
        free(pipe->kept);
        pipe->kept = NULL;
        pipe->kept_size = 0;
        pipe->in = NULL;
        return 0;
    }
    if (pipe->kept != NULL && pipe->in >= pipe->kept && pipe->in < pipe->kept + pipe->kept_size) {
        return 0;
    }
    return keep_input(pipe, pipe->in_len);
}

/* ---- the library ---- */

/* The shared object, or the program, that has `address` in it. */
static const void *
object_of(void *address, const char **name)
{
    Dl_info info;
    if (address == NULL || dladdr(address, &info) == 0) {
        return NULL;
    }
    *name = info.dli_fname;
    return info.dli_fbase;
}

/* Fill `found` from the object that `_ssl` is in and the libraries that this object is linked with; from the
   whole program only if `_ssl` and OpenSSL are in one object, as then it is certain that they belong
   together. */
static int
find_functions(void *inside_ssl, openssl_api *found)
{
    const char *name = NULL;
    const void *base = object_of(inside_ssl, &name);
    if (base == NULL) {
        return 0;
    }
    void *library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD); // never closed: it stays where it is
    int whole_program = library == NULL;
    if (whole_program) {
        library = dlopen(NULL, RTLD_LAZY);
    }
    if (library == NULL) {
        return 0;
    }
#define X(result, function, args)                                                      \
    {                                                                                  \
        void *address = dlsym(library, #function);                                     \
        if (address == NULL || (whole_program && object_of(address, &name) != base)) { \
            return 0;                                                                  \
        }                                                                              \
        memcpy(&found->function, &address, sizeof(address));                           \
    }
    OPENSSL_FUNCTIONS(X)
#undef X
    return 1;
}

/* Interpreters with a lock of their own may come here at the same time. */
static int
api_fill(openssl_api *found)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (api.method == NULL) {
        found->method = found->BIO_meth_new(found->BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ctask");
        if (found->method != NULL && found->BIO_meth_set_read(found->method, bio_read) &&
            found->BIO_meth_set_write(found->method, bio_write) &&
            found->BIO_meth_set_ctrl(found->method, bio_ctrl)) {
            api = *found;
        }
    }
    int filled = api.method != NULL;
    pthread_mutex_unlock(&lock);
    return filled;
}

/* A type made in C, of this name: no class can be put in its place and be taken for it. */
static int
is_type_of_ssl(PyObject *obj, const char *name)
{
    return obj != NULL && PyType_Check(obj) &&
           PyType_HasFeature((PyTypeObject *)obj, Py_TPFLAGS_IMMUTABLETYPE) &&
           strcmp(((PyTypeObject *)obj)->tp_name, name) == 0;
}

/* Returns 1 if OpenSSL can be called directly. */
static int
library_ready(ctask_state *st)
{
    if (LIKELY(st->tls.openssl_known)) {
        return st->tls.openssl_known > 0;
    }
    st->tls.openssl_known = -1;
#ifndef Py_GIL_DISABLED
    PyObject *module = PyImport_ImportModule("_ssl");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "_SSLSocket");
    PyObject *bio = type == NULL ? NULL : PyObject_GetAttrString(module, "MemoryBIO");
    openssl_api found = {0};
    if (is_type_of_ssl(type, "_ssl._SSLSocket") && is_type_of_ssl(bio, "_ssl.MemoryBIO")) {
        void *inside;
        memcpy(&inside, &((PyTypeObject *)type)->tp_dealloc, sizeof(inside));
        if (find_functions(inside, &found) && found.OpenSSL_version_num() >= OLDEST_OPENSSL &&
            api_fill(&found)) {
            st->ssl_socket_type = Py_NewRef(type);
            st->ssl_bio_type = Py_NewRef(bio);
            st->tls.openssl = &api;
            st->tls.openssl_known = 1;
        }
    }
    Py_XDECREF(bio);
    Py_XDECREF(type);
    Py_XDECREF(module);
    PyErr_Clear();
#endif
    return st->tls.openssl_known > 0;
}

/* ---- an SSLObject ---- */

/* The first fields of `_ssl._SSLSocket` in CPython 3.11 to 3.15, and `_ssl.MemoryBIO`. */
typedef struct {
    PyObject_HEAD
    PyObject *socket; // NULL for an SSLObject
    SSL *ssl;
    PyObject *context;
    char shutdown_seen_zero;
    int side;
    PyObject *owner; // weak reference to the SSLObject
    PyObject *server_hostname;
} ssl_socket;

typedef struct {
    PyObject_HEAD
    BIO *bio;
    int eof_written;
} ssl_memory_bio;

/* What follows these fields differs, and so does the size: 96 bytes in 3.11, then 72 to 88. */
#define LARGEST_SSL_SOCKET ((Py_ssize_t)sizeof(ssl_socket) + 5 * (Py_ssize_t)sizeof(void *))

/* Each field is compared with what it must be; only when all agree the SSL* between them is believed, and
   then OpenSSL has to confirm it. */
static SSL *
ssl_of(ctask_state *st, PyObject *sslobj, PyObject *sock, PyObject *context, PyObject *incoming,
       PyObject *outgoing)
{
    PyTypeObject *type = Py_TYPE(sock), *bio_type = (PyTypeObject *)st->ssl_bio_type;
    if ((PyObject *)type != st->ssl_socket_type || type->tp_basicsize <= (Py_ssize_t)sizeof(ssl_socket) ||
        type->tp_basicsize > LARGEST_SSL_SOCKET || type->tp_itemsize != 0) {
        return NULL;
    }
    if (Py_TYPE(incoming) != bio_type || Py_TYPE(outgoing) != bio_type ||
        bio_type->tp_basicsize != (Py_ssize_t)sizeof(ssl_memory_bio)) {
        return NULL;
    }
    PyObject *owner = PyWeakref_NewRef(sslobj, NULL); // there is only one without a callback
    ssl_socket *fields = (ssl_socket *)sock;
    int agree = owner != NULL && fields->socket == NULL && fields->context == context && fields->owner == owner;
    Py_XDECREF(owner);
    SSL *ssl = fields->ssl;
    if (!agree || ssl == NULL || (uintptr_t)ssl % sizeof(void *) != 0) {
        return NULL;
    }
    if (api.SSL_get_ex_data(ssl, 0) != (void *)sock ||
        api.SSL_get_rbio(ssl) != ((ssl_memory_bio *)incoming)->bio ||
        api.SSL_get_wbio(ssl) != ((ssl_memory_bio *)outgoing)->bio) {
        return NULL;
    }
    return ssl;
}

/* A derived class, a patched one or the object itself may have methods of its own for what we would do behind its
   back; its do_handshake() and unwrap() are called.  ssl's functions are known by their globals. */
static int
methods_are_ssls(ctask_state *st, PyObject *sslobj)
{
    if (!PyType_Check(st->ssl_SSLObject) || !PyObject_TypeCheck(sslobj, (PyTypeObject *)st->ssl_SSLObject)) {
        return 0;
    }
    PyObject *names[] = {st->str.read, st->str.write};
    int same = 1;
    for (size_t i = 0; same && i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *method = PyObject_GetAttr(sslobj, names[i]);
        PyObject *function = method != NULL && PyMethod_Check(method) ? PyMethod_GET_FUNCTION(method) : NULL;
        same = function != NULL && PyFunction_Check(function) &&
               PyFunction_GET_GLOBALS(function) == st->ssl_names;
        Py_XDECREF(method);
    }
    PyErr_Clear();
    return same;
}

/* Are there callbacks that raise from within OpenSSL?  What they raise, and what writing the keylog file leaves in
   OpenSSL's queue, is for the methods of the SSLObject to find. */
static int
has_raising_callbacks(ctask_state *st, PyObject *context)
{
    PyObject *names[] = {st->str.keylog_filename, st->str._msg_callback};
    int none = 1;
    for (size_t i = 0; none && i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *value = PyObject_GetAttr(context, names[i]);
        none = value == Py_None;
        Py_XDECREF(value);
    }
    PyErr_Clear();
    return !none;
}

PART int
openssl_unseen(ctask_state *st, PyObject *sslobj)
{
    if (!methods_are_ssls(st, sslobj)) {
        return 0;
    }
    PyObject *context = PyObject_GetAttr(sslobj, st->str.context);
    int result = context != NULL && !has_raising_callbacks(st, context);
    Py_XDECREF(context);
    PyErr_Clear();
    return result;
}

PART SSL *
openssl_attach(ctask_state *st, PyObject *sslobj, PyObject *incoming, PyObject *outgoing, openssl_pipe *pipe,
               BIO **bio, PyObject **owner)
{
    /* The library first: how a handshake ends is asked of it also where the rest goes through ssl's methods. */
    if (!library_ready(st) || !openssl_unseen(st, sslobj)) {
        return NULL;
    }
    PyObject *sock = PyObject_GetAttr(sslobj, st->str._sslobj);
    PyObject *context = sock == NULL ? NULL : PyObject_GetAttr(sock, st->str.context);
    SSL *ssl = context == NULL ? NULL : ssl_of(st, sslobj, sock, context, incoming, outgoing);
    Py_XDECREF(context);
    PyErr_Clear();
    *bio = ssl == NULL ? NULL : api.BIO_new(api.method);
    if (*bio == NULL || !api.BIO_up_ref(*bio)) {
        Py_XDECREF(sock);
        return NULL;
    }
    *owner = sock;
    api.BIO_set_data(*bio, pipe);
    api.BIO_set_init(*bio, 1);
    api.SSL_set_bio(ssl, *bio, *bio); // takes one of our two references
    return ssl;
}

PART void
openssl_detach(openssl_pipe *pipe, BIO *bio)
{
    if (bio != NULL) {
        api.BIO_set_data(bio, NULL);
        api.BIO_free(bio);
    }
    if (!pipe->out_lent) {
        free(pipe->out);
    }
    free(pipe->kept);
    *pipe = (openssl_pipe){0};
}
