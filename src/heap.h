/* The timers: a 4-ary min-heap by time, in order of insertion where times are equal.

   It owns nothing.  Each node knows its place, so a cancelled timer leaves at once, in O(log n), and
   never piles up.  Four children to a node make the tree half as deep as a binary one, and the four
   lie in one or two cache lines. */

#ifndef CTASK_HEAP_H
#define CTASK_HEAP_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    uint32_t place; // index in the heap + 1, or 0: a zeroed node is in no heap
    uint32_t order; // of insertion; wraps around
} heap_node;

typedef struct {
    double when;
    heap_node *node;
} heap_item;

typedef struct {
    heap_item *items;
    size_t length;
    size_t capacity;
    uint32_t order; // of the next insertion
} heap;

static inline int
heap_before(const heap_item *a, const heap_item *b)
{
    if (a->when != b->when) {
        return a->when < b->when;
    }
    return (int32_t)(a->node->order - b->node->order) < 0;
}

static inline void
heap_put(heap *h, size_t place, heap_item item)
{
    h->items[place] = item;
    item.node->place = (uint32_t)place + 1;
}

static inline void
heap_rise(heap *h, size_t place, heap_item item)
{
    while (place > 0) {
        size_t parent = (place - 1) / 4;
        if (!heap_before(&item, &h->items[parent])) {
            break;
        }
        heap_put(h, place, h->items[parent]);
        place = parent;
    }
    heap_put(h, place, item);
}

/* The hole at `place` goes down to a leaf, past the lesser children, and the item rises from there: what
   fills a hole near the root comes from the bottom and mostly belongs there (Wegener 1993). */
static inline void
heap_sink(heap *h, size_t place, heap_item item)
{
    size_t top = place, first;
    while ((first = place * 4 + 1) < h->length) {
        size_t last = first + 4 < h->length ? first + 4 : h->length;
        size_t least = first;
        for (size_t child = first + 1; child < last; child++) {
            if (heap_before(&h->items[child], &h->items[least])) {
                least = child;
            }
        }
        heap_put(h, place, h->items[least]);
        place = least;
    }
    while (place > top) {
        size_t parent = (place - 1) / 4;
        if (!heap_before(&item, &h->items[parent])) {
            break;
        }
        heap_put(h, place, h->items[parent]);
        place = parent;
    }
    heap_put(h, place, item);
}

/* -ENOMEM leaves the heap as it was.  `when` must not be NaN. */
static inline int
heap_push(heap *h, double when, heap_node *node)
{
    if (h->length == h->capacity) {
        size_t bigger = h->capacity < 16 ? 16 : h->capacity + h->capacity / 8;
        if (bigger > UINT32_MAX - 1) {
            return -ENOMEM;
        }
        heap_item *items = realloc(h->items, bigger * sizeof(heap_item));
        if (items == NULL) {
            return -ENOMEM;
        }
        h->items = items;
        h->capacity = bigger;
    }
    heap_item item = {when, node};
    node->order = h->order++;
    heap_rise(h, h->length++, item);
    return 0;
}

static inline void
heap_remove(heap *h, heap_node *node)
{
    size_t place = node->place - 1;
    heap_item moved = h->items[--h->length];
    node->place = 0;
    if (place < h->length) {
        if (place > 0 && heap_before(&moved, &h->items[(place - 1) / 4])) {
            heap_rise(h, place, moved);
        }
        else {
            heap_sink(h, place, moved);
        }
    }
    if (h->capacity > 1024 && h->length < h->capacity / 4) {
        heap_item *items = realloc(h->items, h->capacity / 2 * sizeof(heap_item));
        if (items != NULL) {
            h->items = items;
            h->capacity /= 2;
        }
    }
}

#endif
