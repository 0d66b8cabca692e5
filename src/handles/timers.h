/* The loop's timers: in the exact order of their times, and of insertion where times are equal, at a cost that
   does not depend on how many there are.

   A heap of a million timers touches ten of them, anywhere in memory, for each that it gives out.  Here only
   the earliest few are a heap (`near`), which stays in the nearest cache; what is later lies unsorted until its
   time comes.  That is a ladder queue (W. T. Tang, R. S. M. Goh, I. L.-J. Thng: "Ladder queue: an O(1) priority
   queue structure for large-scale discrete event simulation", ACM TOMACS 15(3), 2005), with a heap for its
   bottom and arrays for its lists:

       top       a bag: whatever is later than `last`
       rungs     each has an array of buckets, bags for equal spans of time; the next rung holds what one bucket
                 of this rung would be too full for
       near      a heap: the earliest

   A timer is moved when the first one is wanted and `near` is empty: the next bucket, or the top, becomes `near`
   if it holds few, or else another rung.  How often a timer is moved depends on how unevenly times are spread, not
   on how many there are: two or three times as a rule.  Most timers are cancelled before they are moved at all.
   One time at the end of the world costs the others one move, as all of them are in one bucket then; where more
   than RUNGS rungs would be needed, the rest is a heap.

   What holds between calls:
   - Where a timer is follows from its time alone (timers_bag): in the top if it is later than `last`; else in the
     first rung where its bucket comes after the current one; else in `near`.  So equal times are always in the
     same bag, and a node need not know more than its place there.
   - A rung's bucket number is a monotone function of the time over all times, also those beyond its ends.  So all
     of a bucket is before all of the next, a rung is before the later buckets of the rung above, and `near` is
     before everything.
   - Buckets up to the current one are empty.
   - `length` is the number of all timers.
   - Only timers_push() can fail, and changes nothing then.  A rung that there is no memory for is done without: the
     bag becomes `near` whole.  A heap is right at any size.

   It owns no timer and knows nothing of Python. */

#ifndef CTASK_TIMERS_H
#define CTASK_TIMERS_H

#include <float.h>
#include <math.h>

#include "handles/heap.h"

#define TIMERS_RUNGS 8
/* A bag of so many becomes `near`: two kilobytes. */
#define TIMERS_FEW 128
/* Buckets of a new rung: the lines that are written to when a bag is spread over them fit in a cache. */
#define TIMERS_BUCKETS 1024
#define TIMERS_IN_BUCKET 32

typedef struct {
    double base; // the time at which the first bucket begins
    double scale; // buckets per second
    heap_bag *buckets; // owned
    int n_buckets;
    int current; // the bucket that was taken last, -1 before the first
} timers_rung;

typedef struct {
    size_t length; // of all
    double last; // what is later is in the top; NaN: everything is; infinity: nothing
    heap_bag near;
    heap_bag top;
    int n_rungs;
    uint32_t near_limit; // beyond so many, `near` is spread out
    uint32_t order; // of the next insertion, doubled
    timers_rung rungs[TIMERS_RUNGS]; // the first is the latest
} timers;

static inline void
timers_init(timers *t)
{
    *t = (timers){.last = INFINITY, .near_limit = 2 * TIMERS_FEW};
}

static inline int
timers_bucket(const timers_rung *rung, double when)
{
    double number = (when - rung->base) * rung->scale;
    if (!(number > 0)) {
        return 0;
    }
    int last = rung->n_buckets - 1;
    return number < last ? (int)number : last;
}

/* The bag of a time that is not in the top. */
static __attribute__((noinline, unused)) heap_bag *
timers_below(timers *t, double when)
{
    for (int i = 0; i < t->n_rungs; i++) {
        timers_rung *rung = &t->rungs[i];
        int number = timers_bucket(rung, when);
        if (number > rung->current) {
            return &rung->buckets[number];
        }
    }
    return &t->near;
}

static void
timers_drop_rung(timers *t)
{
    timers_rung *rung = &t->rungs[--t->n_rungs];
    for (int i = 0; i < rung->n_buckets; i++) {
        free(rung->buckets[i].items);
    }
    free(rung->buckets);
}

/* The bag that has a timer which was set for `when`; NULL if it is none of these. */
static inline heap_bag *
timers_bag_of(timers *t, double when, const heap_node *node)
{
    if (heap_has(&t->near, node)) {
        return &t->near;
    }
    if (heap_has(&t->top, node)) {
        return &t->top;
    }
    heap_bag *bag = t->n_rungs == 0 ? NULL : timers_below(t, isnan(when) ? -INFINITY : when);
    return bag != NULL && heap_has(bag, node) ? bag : NULL;
}

/* A bag's items in a new rung, the bag itself freed; 0 if they are all of the same time, or cannot be spread. */
static __attribute__((noinline, unused)) int
timers_spread(timers *t, heap_bag *bag)
{
    if (t->n_rungs == TIMERS_RUNGS) {
        return 0;
    }
    double low = DBL_MAX, high = -DBL_MAX;
    for (size_t i = 0; i < bag->length; i++) {
        double when = bag->items[i].when;
        low = when < low ? when : low;
        high = when > high ? when : high;
    }
    /* Infinite times have a place, too: in the first bucket or the last. */
    low = low < -DBL_MAX ? -DBL_MAX : low;
    high = high > DBL_MAX ? DBL_MAX : high;
    double span = high - low < DBL_MAX ? high - low : DBL_MAX;
    uint32_t n = bag->length / TIMERS_IN_BUCKET;
    n = n < 2 ? 2 : n > TIMERS_BUCKETS ? TIMERS_BUCKETS : n;
    timers_rung rung = {.base = low, .scale = n / span, .n_buckets = (int)n, .current = -1};
    if (!(rung.scale < INFINITY)) {
        return 0;
    }
    rung.buckets = calloc(n, sizeof(heap_bag));
    if (rung.buckets == NULL) {
        return 0;
    }
    for (size_t i = 0; i < bag->length; i++) {
        rung.buckets[timers_bucket(&rung, bag->items[i].when)].capacity++;
    }
    t->rungs[t->n_rungs++] = rung;
    for (uint32_t i = 0; i < n; i++) {
        heap_bag *bucket = &rung.buckets[i];
        if (bucket->capacity > 0 && (bucket->items = malloc(bucket->capacity * sizeof(heap_item))) == NULL) {
            timers_drop_rung(t);
            return 0;
        }
    }
    for (size_t i = 0; i < bag->length; i++) {
        size_t ahead = i + 16 < bag->length ? i + 16 : i;
        __builtin_prefetch(bag->items[ahead].node, 1);
        bag_push(&rung.buckets[timers_bucket(&rung, bag->items[i].when)], bag->items[i]);
    }
    free(bag->items);
    *bag = (heap_bag){0};
    return 1;
}

/* `near` is empty, and there are timers: give it the earliest. */
static __attribute__((noinline, unused)) void
timers_refill(timers *t)
{
    for (;;) {
        heap_bag bag;
        if (t->n_rungs > 0) {
            timers_rung *rung = &t->rungs[t->n_rungs - 1];
            int number = rung->current + 1;
            while (number < rung->n_buckets && rung->buckets[number].length == 0) {
                number++;
            }
            if (number == rung->n_buckets) {
                timers_drop_rung(t);
                continue;
            }
            rung->current = number;
            bag = rung->buckets[number];
            rung->buckets[number] = (heap_bag){0};
            /* All that was set beyond the end of the rung has gathered in its last bucket: the rung that this may become
               does not come below, or rungs would add up. */
            if (number == rung->n_buckets - 1) {
                timers_drop_rung(t);
            }
        }
        else {
            bag = t->top;
            t->top = (heap_bag){0};
            t->last = bag.length <= TIMERS_FEW ? INFINITY : bag_latest(&bag);
        }
        if (bag.length <= TIMERS_FEW || !timers_spread(t, &bag)) {
            free(t->near.items);
            t->near = bag;
            t->near_limit = 2 * (bag.length > TIMERS_FEW ? bag.length : TIMERS_FEW);
            heap_build(&t->near);
            return;
        }
    }
}

/* `near` has grown too large.  What cannot be spread (it is all of one time, say) is not looked through again for
   each timer that is added. */
static inline void
timers_spill(timers *t)
{
    if (t->n_rungs == 0 && t->top.length == 0) {
        heap_bag empty = t->top;
        t->top = t->near; // a heap is a bag, too
        t->near = empty;
        t->last = NAN;
    }
    else if (!timers_spread(t, &t->near)) {
        t->near_limit = 2 * t->near.length;
    }
}

static inline heap_bag *
timers_bag(timers *t, double when)
{
    return !(when <= t->last) ? &t->top : t->n_rungs == 0 ? &t->near : timers_below(t, when);
}

/* The bag for one more timer, where it had no room; NULL if there is no memory. */
static __attribute__((noinline, unused)) heap_bag *
timers_grow(timers *t, double when)
{
    heap_bag *bag = timers_bag(t, when);
    if (bag == &t->near && bag->length >= t->near_limit) {
        timers_spill(t);
        bag = timers_bag(t, when);
    }
    return bag->length == bag->capacity && heap_grow(bag) < 0 ? NULL : bag;
}

/* -ENOMEM leaves all as it was.  NaN counts as the earliest. */
static inline int
timers_push(timers *t, double when, heap_node *node)
{
    when = isnan(when) ? -INFINITY : when;
    heap_bag *bag = timers_bag(t, when);
    if (__builtin_expect(bag->length == bag->capacity, 0)) {
        bag = timers_grow(t, when);
        if (bag == NULL) {
            return -ENOMEM;
        }
    }
    heap_item item = {when, node};
    node->order = t->order;
    t->order += 2;
    t->length++;
    if (bag == &t->near) {
        heap_push(bag, item);
    }
    else {
        bag_push(bag, item);
    }
    return 0;
}

/* The earliest of at least one. */
static inline const heap_item *
timers_first(timers *t)
{
    if (__builtin_expect(t->near.length == 0, 0)) {
        timers_refill(t);
    }
    return &t->near.items[0];
}

/* The first leaves; timers_first() was called. */
static inline heap_node *
timers_pop(timers *t)
{
    heap_node *node = t->near.items[0].node;
    t->length--;
    heap_remove(&t->near, node);
    return node;
}

/* Take out a timer that was set for `when`, if it is one of these. */
static inline int
timers_remove(timers *t, double when, heap_node *node)
{
    heap_bag *bag = timers_bag_of(t, when, node);
    if (bag == NULL) {
        return 0;
    }
    t->length--;
    if (bag == &t->near) {
        heap_remove(bag, node);
        return 1;
    }
    bag_remove(bag, node);
    if (bag->length == 0 && bag != &t->top) {
        free(bag->items);
        *bag = (heap_bag){0};
    }
    return 1;
}

/* Put `node` in the place of `old`, which is one of these and was set for `when`. */
static inline void
timers_replace(timers *t, double when, heap_node *old, heap_node *node)
{
    heap_bag *bag = timers_bag_of(t, when, old);
    bag->items[old->place - 1].node = node;
    *node = *old;
    old->place = 0;
}

/* For looking through all timers, `near` first: start from {0}, and go on until NULL. */
typedef struct {
    int rung; // 0 before the rungs
    int bucket;
} timers_cursor;

static inline const heap_bag *
timers_next_bag(const timers *t, timers_cursor *cursor)
{
    if (cursor->rung == 0) {
        if (cursor->bucket++ == 0) {
            return &t->near;
        }
        *cursor = (timers_cursor){.rung = 1};
        return &t->top;
    }
    for (; cursor->rung <= t->n_rungs; cursor->rung++, cursor->bucket = 0) {
        const timers_rung *rung = &t->rungs[cursor->rung - 1];
        if (cursor->bucket < rung->n_buckets) {
            return &rung->buckets[cursor->bucket++];
        }
    }
    return NULL;
}

/* The memory; no timer is looked at. */
static inline void
timers_free(timers *t)
{
    while (t->n_rungs > 0) {
        timers_drop_rung(t);
    }
    free(t->near.items);
    free(t->top.items);
}

#endif
