/* Addresses of sockets, as the kernel and as Python have them (address.c). */

#ifndef CTASK_ADDRESS_H
#define CTASK_ADDRESS_H

#include "ctask.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

/* An address as the kernel gave it; a longer one (of a Unix socket) is asked for again when it is wanted. */
typedef struct {
    socklen_t length; // 0: not known, or too long
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } u;
} short_address;

typedef struct {
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } u;
} socket_address;

PART PyObject *address_object(const struct sockaddr *address, socklen_t length);
PART int address_family_known(int family);
PART PyObject *address_build(const socket_address *from);
/* Read an address of which nothing has to be looked up: 1, or 0 with nothing set if the socket module has
   to read it (a name, a subclass, a mistake); -1 with an exception. */
PART int address_read(socket_address *to, int family, PyObject *obj);

#endif
