/* The ready queue: a ring of three-word entries, first in, first out (but for ring_overtake()).

   It knows nothing of Python: who pushes gives references away, who pops gets them (run.c's entries
   own theirs).  The kind of an entry sits in the low bits of its first word, so a wake-up costs no
   object.  Capacity is a power of two; positions run freely and are masked on use: an entry keeps its own while it
   waits, and `head` counts what was popped. */

#ifndef CTASK_RING_H
#define CTASK_RING_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uintptr_t tagged; // subject | kind
    void *arg;
    void *context;
} ring_entry;

typedef struct {
    ring_entry *entries; // NULL until the first push
    size_t capacity;     // a power of two, or 0
    size_t mask;         // capacity - 1
    size_t head;         // next to pop
    size_t tail;         // next to push
} ring;

#define RING_KIND_MASK ((uintptr_t)7)
#define RING_SMALLEST 64
/* A ring that grew beyond this many entries gives its memory back once it has drained. */
#define RING_KEEP 65536

static inline size_t
ring_length(const ring *r)
{
    return r->tail - r->head;
}

/* Room for one more entry; -ENOMEM leaves the ring as it was.  Positions stay what they were. */
static __attribute__((noinline, cold, unused)) int
ring_grow(ring *r)
{
    size_t capacity = r->capacity;
    size_t bigger = capacity == 0 ? RING_SMALLEST : capacity * 2;
    /* A large block stays where it is: the kernel moves its pages, and none is copied or touched anew. */
    ring_entry *entries = realloc(r->entries, bigger * sizeof(ring_entry));
    if (entries == NULL) {
        return -ENOMEM;
    }
    /* It was full.  Of the two parts that its end cut it into, one is in the upper half now: from the position that
       is an odd multiple of the old capacity. */
    size_t first = r->head & r->mask;
    if (r->head & capacity) {
        memcpy(entries + capacity + first, entries + first, (capacity - first) * sizeof(ring_entry));
    }
    else if (first > 0) {
        memcpy(entries + capacity, entries, first * sizeof(ring_entry));
    }
    r->entries = entries;
    r->capacity = bigger;
    r->mask = bigger - 1;
    return 0;
}

static inline ring_entry
ring_make(void *subject, unsigned kind, void *arg, void *context)
{
    return (ring_entry){(uintptr_t)subject | kind, arg, context};
}

static inline int
ring_push(ring *r, ring_entry entry)
{
    if (__builtin_expect(ring_length(r) == r->capacity, 0)) {
        int err = ring_grow(r);
        if (err < 0) {
            return err;
        }
    }
    r->entries[r->tail++ & r->mask] = entry;
    return 0;
}

static inline ring_entry
ring_pop(ring *r)
{
    return r->entries[r->head++ & r->mask];
}

static inline void
ring_reverse(ring *r, size_t from, size_t n)
{
    for (size_t i = from, j = from + n; i + 1 < j; i++, j--) {
        ring_entry *first = &r->entries[i & r->mask], *last = &r->entries[(j - 1) & r->mask], entry = *first;
        *first = *last;
        *last = entry;
    }
}

/* The n entries that were pushed last go before the m that are in front of them; both stay in their order. */
static inline void
ring_overtake(ring *r, size_t n, size_t m)
{
    ring_reverse(r, r->tail - n - m, m);
    ring_reverse(r, r->tail - n, n);
    ring_reverse(r, r->tail - n - m, n + m);
}

/* The one pushed last, of at least one. */
static inline ring_entry *
ring_last(const ring *r)
{
    return &r->entries[(r->tail - 1) & r->mask];
}

/* The i-th entry from the head, for looking through the queue. */
static inline ring_entry *
ring_at(const ring *r, size_t i)
{
    return &r->entries[(r->head + i) & r->mask];
}

static inline void *
ring_subject(const ring_entry *entry)
{
    return (void *)(entry->tagged & ~RING_KIND_MASK);
}

static inline unsigned
ring_kind(const ring_entry *entry)
{
    return (unsigned)(entry->tagged & RING_KIND_MASK);
}

/* After a drain: a burst must not keep its memory for ever. */
static inline void
ring_trim(ring *r)
{
    if (r->capacity > RING_KEEP && r->head == r->tail) {
        free(r->entries);
        *r = (ring){.head = r->head, .tail = r->tail};
    }
}

#endif
