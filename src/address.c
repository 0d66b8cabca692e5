/* Socket addresses as Python shows them: (host, port), (host, port, flowinfo, scope), a path. */

#include "transport.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/un.h>

/* As socket.getsockname() would give it.  NULL with no exception set if the family is another one. */
PART PyObject *
address_object(const struct sockaddr *address, socklen_t length)
{
    char host[NI_MAXHOST];
    if (length < sizeof(sa_family_t)) {
        Py_RETURN_NONE;
    }
    switch (address->sa_family) {
    case AF_INET: {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        if (inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)) == NULL) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        return Py_BuildValue("(si)", host, (int)ntohs(in->sin_port));
    }
    case AF_INET6: {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;
        if (in->sin6_scope_id == 0) {
            if (inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host)) == NULL) {
                return PyErr_SetFromErrno(PyExc_OSError);
            }
        }
        else if (getnameinfo(address, length, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0) {
            return NULL; /* socket has the words for it */
        }
        return Py_BuildValue("(siII)",
                             host,
                             (int)ntohs(in->sin6_port),
                             (unsigned)ntohl(in->sin6_flowinfo),
                             (unsigned)in->sin6_scope_id);
    }
    case AF_UNIX: {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        size_t n = length - offsetof(struct sockaddr_un, sun_path);
        if (length <= offsetof(struct sockaddr_un, sun_path)) {
            return PyUnicode_FromStringAndSize(NULL, 0);
        }
        if (un->sun_path[0] == '\0') {
            return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)n);
        }
        return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)strnlen(un->sun_path, n));
    }
    default:
        return NULL;
    }
}
