/* The buffer that is received into, and memory that goes back (memory.c). */

#ifndef CTASK_MEMORY_H
#define CTASK_MEMORY_H

#include "handles/objects.h"

PART char *loop_map_read_buffer(void);
PART void loop_unmap_read_buffer(char *buffer);
/* To be called before the loop sleeps.  Returns for how long at most: `timeout`, or less to come back to this once. */
PART int64_t memory_trim(LoopObj *loop, int64_t timeout);

/* READ_BUFFER_SIZE bytes to receive into, the taker's alone until they are given back: whoever receives in Python
   code that is called meanwhile gets others.  NULL with MemoryError set. */
static inline char *
loop_take_read_buffer(LoopObj *loop)
{
    char *buffer = loop->read_buffer;
    loop->read_buffer = NULL;
    if (UNLIKELY(buffer == NULL)) {
        buffer = loop_map_read_buffer();
    }
    return buffer;
}

static inline void
loop_give_read_buffer(LoopObj *loop, char *buffer)
{
    if (LIKELY(loop->read_buffer == NULL)) {
        loop->read_buffer = buffer;
    }
    else {
        loop_unmap_read_buffer(buffer);
    }
}

#endif
