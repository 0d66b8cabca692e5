/* Memory that the loop takes from the system by itself, or gives back: the buffer that transports receive into, and
   what the C library keeps of a heap that was large once. */

#include "loop/memory.h"
#include "loop/poll.h"

#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- the buffer that is received into ---- */

/* Not malloc's: in the middle of its heap it would keep all that is freed below it from going back. */
PART char *
loop_map_read_buffer(void)
{
    /* Freeing a block that was mapped for itself raises glibc's thresholds (mallopt(3), M_MMAP_THRESHOLD): with
       those it starts from, each large message takes memory from the kernel and gives it back.  In asyncio the
       first recv() of 256 KiB does this; 4 MiB, so that up to 8 stay, also serves a hundred connections with
       100 KiB each. */
    PyMem_RawFree(PyMem_RawMalloc(16 * READ_BUFFER_SIZE));
    void *buffer = mmap(NULL, READ_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        PyErr_NoMemory();
        return NULL;
    }
    return buffer;
}

PART void
loop_unmap_read_buffer(char *buffer)
{
    if (buffer != NULL) {
        munmap(buffer, READ_BUFFER_SIZE);
    }
}

/* ---- memory that goes back ---- */

/* What was read are blocks of the C library's heap, which gives back by itself what is free at its end only: one
   small block that stays keeps all that is below it.  (In asyncio each large message is a mapping of its own, at the
   price of two system calls and a trap for every page.)  So when the heap has grown by so much, its free pages are
   given back before the loop sleeps: at most so often, never for more than a fiftieth of the time, and again only when
   so much was taken from the system since, or freed of what was in use then, as a heap in many pieces takes long though
   there is nothing to gain. */
#define HEAP_IS_LARGE (16 << 20)
#define WORTH_TRIMMING (8 << 20)
#define TRIM_SECONDS 0.25
#define TRIM_SHARE 50

#ifdef __GLIBC__
/* The pages of the process that are in memory (proc_pid_statm(5)); 0 if that cannot be read. */
static long
resident_pages(void)
{
    char text[64];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[n > 0 ? n : 0] = 0;
    const char *second = strchr(text, ' ');
    return second == NULL ? 0 : strtol(second, NULL, 10);
}

/* The bytes in use in the C library's heap, without blocks that are mappings of their own; of large numbers the lower
   half.  (Its successor mallinfo2() came with glibc 2.33.) */
static unsigned
used_bytes(void)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return (unsigned)mallinfo().uordblks;
#pragma GCC diagnostic pop
}

/* Seconds that this thread has run: what others take on a busy machine is not the price of a trim. */
static double
cpu_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}
#endif

PART int64_t
memory_trim(LoopObj *loop, int64_t timeout)
{
#ifdef __GLIBC__
    if (LIKELY((char *)sbrk(0) - loop->heap_end < HEAP_IS_LARGE || loop->trimmed)) {
        return timeout;
    }
    double now = poll_clock();
    if (now < loop->trim_at) {
        int64_t wait = (int64_t)((loop->trim_at - now) * 1e9) + 1;
        return (uint64_t)wait < (uint64_t)timeout ? wait : timeout; // -1 is without end
    }
    double begun = cpu_clock();
    long pages = resident_pages();
    if (pages == 0 || pages - loop->trimmed_to >= WORTH_TRIMMING / sysconf(_SC_PAGESIZE) ||
        (int)(loop->used_then - used_bytes()) >= WORTH_TRIMMING) {
        (void)malloc_trim(0);
        loop->trimmed_to = resident_pages();
        loop->used_then = used_bytes();
    }
    loop->trim_at = poll_clock() + fmax(TRIM_SECONDS, TRIM_SHARE * (cpu_clock() - begun));
    loop->trimmed = 1;
#else
    (void)loop;
#endif
    return timeout;
}
