/* Which of some objects were there before, by address: a table of positions + 1.  Few are compared one by one.

   It knows nothing of Python, owns nothing but its memory, and is gone when the call is. */

#ifndef CTASK_SEEN_H
#define CTASK_SEEN_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define SEEN_FEW 8

typedef struct {
    uint32_t *places; // NULL for few
    size_t mask;
} seen_table;

/* For `n` objects, fewer than 2^31; -1 without memory. */
static inline int
seen_open(seen_table *seen, size_t n)
{
    seen->places = NULL;
    seen->mask = 0;
    if (n <= SEEN_FEW) {
        return 0;
    }
    size_t size = 32;
    while (size < n * 2) {
        size *= 2;
    }
    seen->mask = size - 1;
    seen->places = calloc(size, sizeof(uint32_t));
    return seen->places == NULL ? -1 : 0;
}

/* Where objects[i] was before, or -1.  To be asked with rising `i`. */
static inline ptrdiff_t
seen_before(seen_table *seen, void *const *objects, size_t i)
{
    if (seen->places == NULL) {
        for (size_t k = 0; k < i; k++) {
            if (objects[k] == objects[i]) {
                return (ptrdiff_t)k;
            }
        }
        return -1;
    }
    size_t place = (size_t)(((uint64_t)(uintptr_t)objects[i] >> 4) * 0x9E3779B97F4A7C15u >> 24);
    for (;; place++) {
        uint32_t *entry = &seen->places[place & seen->mask];
        if (*entry == 0) {
            *entry = (uint32_t)i + 1;
            return -1;
        }
        if (objects[*entry - 1] == objects[i]) {
            return (ptrdiff_t)*entry - 1;
        }
    }
}

static inline void
seen_close(seen_table *seen)
{
    free(seen->places);
}

#endif
