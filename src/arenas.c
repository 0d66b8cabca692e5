/* Pages for the interpreter's memory, an arena at a time.

   pymalloc takes memory in arenas of 1 MiB and fills them from one end to the other.  The kernel gives a page of
   4 KiB when it is first touched, a trap each time, and takes it back when the arena is freed.  Among a million
   tasks that was a third of what a task costs.  When a loop first runs this part puts itself in front of the
   interpreter's arena allocator, and from then on

   - a new arena gets all its pages in one call, if the program has many and never had as many;
   - an arena that is freed while a loop is at work is kept for the next one.  What was not needed again for a
     second goes back to the kernel, when the loop polls: a few arenas at a time, so that no event waits for them.

   Huge pages would do more where the machine has them at hand (25 % of a task, not 15), but asking a virtual
   machine's host for one took 6 ms, in which no loop turns.

   One per process, as the allocator is: the one part with C globals.  Arenas outlive the interpreter that asked for
   them, so it is never taken out again (CPython unloads no extension), and knows no module.  Interpreters with GILs
   of their own share it.  With PYTHONMALLOC=malloc, or without the GIL, there are no arenas. */

#include "arenas.h"
#include "poll.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14; before, it is refused and nothing is lost
#endif

#define ARENA_BYTES ((size_t)1 << 20) // other sizes are the stacks of frames, and other builds' arenas
/* How many arenas a program has before it gets them whole. */
#define MANY 32

/* What was not needed for so long goes back, so many arenas at a time. */
#define KEEP_SECONDS 1.0
#define AT_ONCE 4

/* An arena without an object in it; the link is in its own memory. */
typedef struct unused_arena {
    struct unused_arena *next;
} unused_arena;

static PyObjectArenaAllocator found; // constant once installed
static int installed;
static Py_ssize_t alive; // arenas given out since
static Py_ssize_t most; // that there ever were
static Py_ssize_t populated; // of all, how many came with their pages

/* The loops that run and do not sleep.  Only they poll soon: with none, nobody would give back what is kept. */
static Py_ssize_t awake;

static unused_arena *unused; // this and the rest is for who holds `unused_taken`
static Py_ssize_t n_unused;
static Py_ssize_t fewest; // there were since the second began: these were not needed
static Py_ssize_t leaving; // of them, those to give back
static double second_ends;

/* Nobody waits for it: who finds it taken, by an interpreter with another GIL, asks the kernel as if nothing
   were kept. */
static char unused_taken;

static int
unused_take(void)
{
    return !__atomic_test_and_set(&unused_taken, __ATOMIC_ACQUIRE);
}

static void
unused_release(void)
{
    __atomic_clear(&unused_taken, __ATOMIC_RELEASE);
}

static void
unused_push(void *arena)
{
    unused_arena *first = arena;
    first->next = unused;
    unused = first;
    __atomic_store_n(&n_unused, n_unused + 1, __ATOMIC_RELAXED);
}

static void *
unused_pop(void)
{
    unused_arena *first = unused;
    if (first != NULL) {
        unused = first->next;
        __atomic_store_n(&n_unused, n_unused - 1, __ATOMIC_RELAXED);
        fewest = Py_MIN(fewest, n_unused);
    }
    return first;
}

static void *
arenas_alloc(void *ctx, size_t size)
{
    if (size != ARENA_BYTES) {
        return found.alloc(ctx, size);
    }
    void *arena = NULL;
    if (__atomic_load_n(&n_unused, __ATOMIC_RELAXED) > 0 && unused_take()) {
        arena = unused_pop();
        unused_release();
    }
    int is_new = arena == NULL;
    if (is_new && (arena = found.alloc(ctx, size)) == NULL) {
        return NULL;
    }
    /* Two threads of interpreters that share no lock may both take theirs for the most: no harm. */
    Py_ssize_t now = __atomic_add_fetch(&alive, 1, __ATOMIC_RELAXED);
    if (now > __atomic_load_n(&most, __ATOMIC_RELAXED)) {
        __atomic_store_n(&most, now, __ATOMIC_RELAXED);
        int saved = errno;
        if (is_new && now > MANY && madvise(arena, size, MADV_POPULATE_WRITE) == 0) {
            __atomic_add_fetch(&populated, 1, __ATOMIC_RELAXED);
        }
        errno = saved;
    }
    return arena;
}

static void
arenas_free(void *ctx, void *arena, size_t size)
{
    if (size == ARENA_BYTES && arena != NULL) {
        __atomic_sub_fetch(&alive, 1, __ATOMIC_RELAXED); // below zero by those from before
        if (__atomic_load_n(&awake, __ATOMIC_RELAXED) > 0 && unused_take()) {
            unused_push(arena);
            unused_release();
            return;
        }
    }
    found.free(ctx, arena, size);
}

/* Takes `n` out, or what there is; for arenas_give_back() when `unused_taken` is let go. */
static unused_arena *
unused_pop_many(Py_ssize_t n)
{
    unused_arena *many = NULL, *one;
    while (n-- > 0 && (one = unused_pop()) != NULL) {
        one->next = many;
        many = one;
    }
    return many;
}

static void
arenas_give_back(unused_arena *arena)
{
    while (arena != NULL) {
        unused_arena *next = arena->next;
        found.free(found.ctx, arena, ARENA_BYTES);
        arena = next;
    }
}

/* Around a loop's sleep, with its interpreter's lock. */
PART void
arenas_sleep(void)
{
    __atomic_sub_fetch(&awake, 1, __ATOMIC_RELAXED);
}

PART void
arenas_wake(void)
{
    __atomic_add_fetch(&awake, 1, __ATOMIC_RELAXED);
}

/* A loop begins to run: the first of the process counts. */
PART void
arenas_begin(void)
{
    if (UNLIKELY(!__atomic_exchange_n(&installed, 1, __ATOMIC_RELAXED))) {
        PyObject_GetArenaAllocator(&found);
        PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){found.ctx, arenas_alloc, arenas_free});
    }
    arenas_wake();
}

/* The loop has ended.  Others that sleep do not need what is kept. */
PART void
arenas_end(void)
{
    if (__atomic_sub_fetch(&awake, 1, __ATOMIC_RELAXED) <= 0 && unused_take()) {
        unused_arena *all = unused_pop_many(n_unused);
        unused_release();
        arenas_give_back(all);
    }
}

/* Give back some of what was not needed.  Returns after how many nanoseconds at most to call again, never 0, or -1 if
   there is no need. */
PART int64_t
arenas_tidy(void)
{
    if (LIKELY(__atomic_load_n(&n_unused, __ATOMIC_RELAXED) == 0)) {
        return -1;
    }
    if (!unused_take()) {
        return (int64_t)(KEEP_SECONDS * 1e9);
    }
    double now = poll_clock();
    if (now >= second_ends) {
        /* If nobody looked for long, perhaps as nothing was kept, a second begins now. */
        leaving = now < second_ends + KEEP_SECONDS ? fewest : 0;
        second_ends = now + KEEP_SECONDS;
        fewest = n_unused;
    }
    Py_ssize_t n = Py_MIN(leaving, AT_ONCE);
    leaving -= n;
    int64_t wait = leaving > 0 ? 1 : (int64_t)((second_ends - now) * 1e9) + 1;
    unused_arena *some = unused_pop_many(n);
    unused_release();
    arenas_give_back(some);
    return wait;
}

/* In a forked child no loop runs, but perhaps a copy of the one that forked: for that one nothing is kept.  What
   another thread was doing is not known. */
PART void
arenas_forked(void)
{
    if (!unused_take()) {
        unused = NULL;
        n_unused = 0;
    }
    __atomic_store_n(&awake, 0, __ATOMIC_RELAXED);
    unused_release();
}

PyDoc_STRVAR(arenas_doc,
"_arenas($module, /)\n--\n\n"
"Return three numbers about this process since a loop first ran in it: the interpreter's arenas (of 1 MiB) that are\n"
"alive, how many arenas came with all their pages, and how many are kept for the next that is asked for.");

static PyObject *
arenas_counts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("nnn",
                         __atomic_load_n(&alive, __ATOMIC_RELAXED),
                         __atomic_load_n(&populated, __ATOMIC_RELAXED),
                         __atomic_load_n(&n_unused, __ATOMIC_RELAXED));
}

static PyMethodDef arenas_functions[] = {
    {"_arenas", arenas_counts, METH_NOARGS, arenas_doc},
    {NULL, NULL, 0, NULL},
};

PART int
arenas_setup(PyObject *module, ctask_state *Py_UNUSED(st))
{
    return PyModule_AddFunctions(module, arenas_functions);
}
