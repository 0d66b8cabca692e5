/* Pages for the interpreter's memory, an arena at a time, once a program has much of it.

   pymalloc takes memory in arenas of 1 MiB and fills them from one end to the other.  The kernel gives a page of
   4 KiB when it is first touched: a trap each time, and a third of what a task among a million costs.  When a loop
   first runs this part puts itself in front of the interpreter's arena allocator.  From then on a new arena gets
   all its pages in one call, if the program has many and never had as many: memory that comes and goes is touched
   as before, and a small program is left alone.

   Huge pages would do more where the machine has them at hand (25 % of a task, not 15), but asking a virtual
   machine's host for one took 6 ms, in which no loop turns.

   One per process, as the allocator is: the one part with C globals.  Arenas outlive the interpreter that asked for
   them, so it is never taken out again (CPython unloads no extension), and knows no module.  Interpreters with GILs
   of their own share it.  With PYTHONMALLOC=malloc, or without the GIL, there are no arenas. */

#include "arenas.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14; before, it is refused and nothing is lost
#endif

#define ARENA_BYTES ((size_t)1 << 20) // other sizes are the stacks of frames, and other builds' arenas
/* How many arenas a program has before it gets them whole. */
#define MANY 32

static PyObjectArenaAllocator found; // constant once installed
static int installed;
static Py_ssize_t alive; // arenas given out since
static Py_ssize_t most; // that there ever were
static Py_ssize_t populated; // of all, how many came with their pages

static void *
arenas_alloc(void *ctx, size_t size)
{
    void *arena = found.alloc(ctx, size);
    if (size != ARENA_BYTES || arena == NULL) {
        return arena;
    }
    /* Two threads of interpreters that share no lock may both take theirs for the most: no harm. */
    Py_ssize_t now = __atomic_add_fetch(&alive, 1, __ATOMIC_RELAXED);
    if (now > __atomic_load_n(&most, __ATOMIC_RELAXED)) {
        __atomic_store_n(&most, now, __ATOMIC_RELAXED);
        int saved = errno;
        if (now > MANY && madvise(arena, size, MADV_POPULATE_WRITE) == 0) {
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
    }
    found.free(ctx, arena, size);
}

/* Called when a loop runs; the first call in the process counts. */
PART void
arenas_install(void)
{
    if (LIKELY(__atomic_exchange_n(&installed, 1, __ATOMIC_RELAXED))) {
        return;
    }
    PyObject_GetArenaAllocator(&found);
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){found.ctx, arenas_alloc, arenas_free});
}

PyDoc_STRVAR(arenas_doc,
"_arenas($module, /)\n--\n\n"
"Return two numbers about this process since a loop first ran in it: the interpreter's arenas (of 1 MiB) that are\n"
"alive, and how many arenas came with all their pages.");

static PyObject *
arenas_counts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue(
        "nn", __atomic_load_n(&alive, __ATOMIC_RELAXED), __atomic_load_n(&populated, __ATOMIC_RELAXED));
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
