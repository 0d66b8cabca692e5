/* Timers in arrays: a bag, in no order, and a 4-ary min-heap, by time and in order of insertion where times are
   equal.

   Neither owns a timer.  Each node knows its place in the array that it is in, so a cancelled timer leaves at
   once: a bag in O(1), a heap in O(log n).  Four children to a node make the tree half as deep as a binary
   one, and the four lie in one or two cache lines. */

#ifndef CTASK_HEAP_H
#define CTASK_HEAP_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    uint32_t place; // index in the array + 1, or 0: a zeroed node is in none
    uint32_t order; // of insertion, doubled; wraps around.  The lowest bit is the owner's
} heap_node;

typedef struct {
    double when; // no NaN
    heap_node *node;
} heap_item;

typedef struct {
    heap_item *items; // owned; the nodes in them are not
    uint32_t length;
    uint32_t capacity;
} heap_bag;

/* An array of this size keeps its memory. */
#define HEAP_KEEP 256

/* ---- what bags and heaps have in common ---- */

/* Room for more; -ENOMEM leaves the array as it was. */
static __attribute__((noinline, unused)) int
heap_grow(heap_bag *b)
{
    size_t capacity = b->capacity;
    size_t bigger = capacity < 16 ? 16 : capacity < HEAP_KEEP ? capacity * 2 : capacity + capacity / 8;
    if (bigger > UINT32_MAX - 1) {
        return -ENOMEM;
    }
    heap_item *items = realloc(b->items, bigger * sizeof(heap_item));
    if (items == NULL) {
        return -ENOMEM;
    }
    b->items = items;
    b->capacity = (uint32_t)bigger;
    return 0;
}

/* After a removal: a burst must not keep its memory for ever. */
static inline void
heap_trim(heap_bag *b)
{
    if (__builtin_expect(b->capacity > HEAP_KEEP && b->length < b->capacity / 4, 0)) {
        heap_item *items = realloc(b->items, b->capacity / 2 * sizeof(heap_item));
        if (items != NULL) {
            b->items = items;
            b->capacity /= 2;
        }
    }
}

static inline void
heap_put(heap_bag *b, size_t place, heap_item item)
{
    b->items[place] = item;
    item.node->place = (uint32_t)place + 1;
}

static inline int
heap_has(const heap_bag *b, const heap_node *node)
{
    uint32_t place = node->place - 1;
    return place < b->length && b->items[place].node == node;
}

/* ---- a bag ---- */

/* There is room. */
static inline void
bag_push(heap_bag *b, heap_item item)
{
    heap_put(b, b->length++, item);
}

static inline void
bag_remove(heap_bag *b, heap_node *node)
{
    size_t place = node->place - 1;
    heap_item last = b->items[--b->length];
    heap_put(b, place, last);
    node->place = 0; // after the last took its place: it may be the last itself
    heap_trim(b);
}

/* Not empty. */
static inline double
bag_latest(const heap_bag *b)
{
    double latest = b->items[0].when;
    for (size_t i = 1; i < b->length; i++) {
        latest = b->items[i].when > latest ? b->items[i].when : latest;
    }
    return latest;
}

/* ---- a heap ---- */

static inline int
heap_before(const heap_item *a, const heap_item *b)
{
    if (a->when != b->when) {
        return a->when < b->when;
    }
    return (int32_t)(a->node->order - b->node->order) < 0;
}

static __attribute__((noinline, unused)) void
heap_rise(heap_bag *h, size_t place, size_t top, heap_item item)
{
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

/* The hole at `place` goes down to a leaf, past the lesser children, and the item rises from there: what
   fills a hole near the root comes from the bottom and mostly belongs there (Wegener 1993). */
static __attribute__((noinline, unused)) void
heap_sink(heap_bag *h, size_t place, heap_item item)
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
    heap_rise(h, place, top, item);
}

/* There is room. */
static inline void
heap_push(heap_bag *h, heap_item item)
{
    size_t place = h->length++;
    if (place > 0 && heap_before(&item, &h->items[(place - 1) / 4])) {
        heap_rise(h, place, 0, item);
    }
    else {
        heap_put(h, place, item);
    }
}

static inline void
heap_remove(heap_bag *h, heap_node *node)
{
    size_t place = node->place - 1;
    heap_item moved = h->items[--h->length];
    node->place = 0;
    if (place < h->length) {
        if (place > 0 && heap_before(&moved, &h->items[(place - 1) / 4])) {
            heap_rise(h, place, 0, moved);
        }
        else {
            heap_sink(h, place, moved);
        }
    }
    heap_trim(h);
}

/* A bag becomes a heap.  Its nodes are scattered over memory: they are all asked for before the first is
   looked at. */
static __attribute__((noinline, unused)) void
heap_build(heap_bag *b)
{
    for (size_t i = 0; i < b->length; i++) {
        __builtin_prefetch(b->items[i].node, 1);
    }
    for (size_t i = 0; i < b->length; i++) {
        b->items[i].node->place = (uint32_t)i + 1;
    }
    for (size_t place = (b->length + 2) / 4; place-- > 0;) {
        heap_sink(b, place, b->items[place]);
    }
}

#endif
