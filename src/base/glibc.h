/* Names of old glibc versions, for wheels that have to run there (CTASK_OLD_GLIBC, see setup.py).

   A program that is linked today asks for today's version of a function, also where nothing but the library
   that it is in has changed since.  Of what ctask calls, these are newer than manylinux_2_17, the oldest
   glibc that wheels of CPython 3.11 are for: fcntl64 (2.28), which on 64 bits is fcntl; fstat (2.33), which
   was an inline call of __fxstat; dlopen, dlsym and dladdr (2.34), which moved from libdl to libc; and
   pthread_condattr_setclock (2.34), which moved there from libpthread.
   tools/wheels fails if another one appears. */

#ifndef CTASK_GLIBC_H
#define CTASK_GLIBC_H

#if defined(CTASK_OLD_GLIBC) && defined(__GLIBC__) && defined(__LP64__) && \
    (defined(__x86_64__) || defined(__aarch64__))

#include <sys/stat.h>

/* OLDEST is the first release for the processor, CLOCK that of the function, LAYOUT the kernel's own struct stat. */
#ifdef __x86_64__
#define GLIBC_OLDEST "GLIBC_2.2.5"
#define GLIBC_CLOCK "GLIBC_2.3.3"
#define GLIBC_LAYOUT 1
#else
#define GLIBC_OLDEST "GLIBC_2.17"
#define GLIBC_CLOCK "GLIBC_2.17"
#define GLIBC_LAYOUT 0
#endif

__asm__(".symver fcntl64, fcntl@" GLIBC_OLDEST);
__asm__(".symver dladdr, dladdr@" GLIBC_OLDEST);
__asm__(".symver dlopen, dlopen@" GLIBC_OLDEST);
__asm__(".symver dlsym, dlsym@" GLIBC_OLDEST);
__asm__(".symver pthread_condattr_setclock, pthread_condattr_setclock@" GLIBC_CLOCK);
__asm__(".symver __fxstat, __fxstat@" GLIBC_OLDEST);

extern int __fxstat(int version, int fd, struct stat *status);
#define fstat(fd, status) __fxstat(GLIBC_LAYOUT, fd, status)

#endif

#endif
