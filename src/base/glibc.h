/* Names of old glibc versions, for wheels that have to run there (CTASK_OLD_GLIBC, see setup.py).

   A program that is linked today asks for today's version of a function, also where nothing but the library
   that it is in has changed since.  Of what ctask calls, these are newer than manylinux_2_17, the oldest
   glibc that wheels of CPython 3.11 are for: fcntl64 (2.28), which on 64 bits is fcntl; fstat (2.33), which
   was an inline call of __fxstat; and dlopen, dlsym and dladdr (2.34), which moved from libdl to libc.
   tools/wheels fails if another one appears. */

#ifndef CTASK_GLIBC_H
#define CTASK_GLIBC_H

#if defined(CTASK_OLD_GLIBC) && defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__)

#include <sys/stat.h>

__asm__(".symver fcntl64, fcntl@GLIBC_2.2.5");
__asm__(".symver dladdr, dladdr@GLIBC_2.2.5");
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
__asm__(".symver __fxstat, __fxstat@GLIBC_2.2.5");

extern int __fxstat(int version, int fd, struct stat *status);
#define fstat(fd, status) __fxstat(1, fd, status) // 1: the kernel's own layout

#endif

#endif
