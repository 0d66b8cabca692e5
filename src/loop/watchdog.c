/* The waiting of a thread that notices when one callback keeps the loop.

   It looks without the interpreter lock, which such a callback may have, and at two numbers only: how many callbacks
   and how many iterations there were.  While the loop sleeps, or does not run, so does the watchdog, and costs nothing;
   while callbacks come and go it looks a few times in the time that one may take.  ctask/observe/watch.py has the
   thread, and looks at the stack. */

#include "loop/watchdog.h"

#include "handles/clock.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

#define LONGEST_THRESHOLD (24 * 3600.0) // seconds
#define LOOKS 4 // in the time that a callback may take
#define LONGEST_LOOK 50000000 // nanoseconds between two
#define END_LOOK 1000000 // between two while a callback that took too long goes on

struct watchdog {
    pthread_mutex_t mutex;
    pthread_cond_t roused; // of `asleep`, or somebody is to stop
    unsigned forks; // of the process, when it was made: in a forked child the thread is not
    int asleep; // how many threads, as the loop has nothing to do
};

/* Whether one thread is to stop: the first byte of a buffer of its own, written with the mutex held. */
typedef const volatile char stop_flag;

/* What the loop's thread writes meanwhile: word by word, and any of them may be a little old. */
typedef struct {
    size_t callbacks;
    uint64_t iterations;
    int works; // it runs, and does not wait for events
} look;

static look
look_at(const LoopObj *loop)
{
    return (look){
        .callbacks = __atomic_load_n(&loop->ready.head, __ATOMIC_RELAXED),
        .iterations = __atomic_load_n(&loop->counters.iterations, __ATOMIC_RELAXED),
        .works = __atomic_load_n(&loop->counters.running_since, __ATOMIC_RELAXED) != 0 &&
                 __atomic_load_n(&loop->counters.waiting_since, __ATOMIC_RELAXED) == 0,
    };
}

static int
is_the_same(look a, look b)
{
    return a.works && b.works && a.callbacks == b.callbacks && a.iterations == b.iterations;
}

PART void
watchdog_rouse(LoopObj *loop)
{
    struct watchdog *dog = loop->watchdog;
    if (dog->forks != loop->st->loop.forks) {
        return; // the mutex is nobody's who could give it back
    }
    /* Either it sees that the loop works, or we see that it sleeps. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&dog->asleep, __ATOMIC_RELAXED)) {
        pthread_mutex_lock(&dog->mutex);
        pthread_cond_broadcast(&dog->roused);
        pthread_mutex_unlock(&dog->mutex);
    }
}

PART void
watchdog_free(struct watchdog *dog)
{
    if (dog != NULL) {
        pthread_cond_destroy(&dog->roused);
        pthread_mutex_destroy(&dog->mutex);
        PyMem_RawFree(dog);
    }
}

static struct watchdog *
watchdog_of(LoopObj *loop)
{
    if (loop->watchdog == NULL || loop->watchdog->forks != loop->st->loop.forks) {
        struct watchdog *dog = PyMem_RawCalloc(1, sizeof(*dog));
        pthread_condattr_t attributes;
        if (dog == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        pthread_mutex_init(&dog->mutex, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&dog->roused, &attributes);
        pthread_condattr_destroy(&attributes);
        dog->forks = loop->st->loop.forks;
        loop->watchdog = dog; // the parent's, if there is one, is left alone
    }
    return loop->watchdog;
}

/* Until that moment, or until it is stopped; the mutex is held. */
static void
doze(struct watchdog *dog, stop_flag *stopped, int64_t until)
{
    struct timespec ts = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    while (!*stopped && pthread_cond_timedwait(&dog->roused, &dog->mutex, &ts) == 0) {
    }
}

/* Until the loop works, or until it is stopped; the mutex is held. */
static void
sleep_with(struct watchdog *dog, stop_flag *stopped, const LoopObj *loop)
{
    __atomic_add_fetch(&dog->asleep, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    while (!*stopped && !look_at(loop).works) {
        pthread_cond_wait(&dog->roused, &dog->mutex);
    }
    __atomic_sub_fetch(&dog->asleep, 1, __ATOMIC_RELAXED);
}

/* 1 when one callback has kept the loop for so long, with what was seen and since when; 0 if it was stopped, or if the
   loop works after that moment. */
static int
wait_for_block(struct watchdog *dog, stop_flag *stopped, const LoopObj *loop, int64_t threshold, int64_t until,
               look *seen, int64_t *since)
{
    int64_t pause = threshold / LOOKS < LONGEST_LOOK ? threshold / LOOKS + 1 : LONGEST_LOOK;
    *seen = (look){0};
    while (!*stopped) {
        look now = look_at(loop);
        int64_t clock = clock_nanoseconds();
        if (!now.works) {
            sleep_with(dog, stopped, loop);
            continue;
        }
        if (clock >= until) {
            return 0;
        }
        if (!is_the_same(now, *seen)) {
            *seen = now;
            *since = clock;
        }
        else if (clock - *since >= threshold) {
            return 1;
        }
        doze(dog, stopped, clock + pause);
    }
    return 0;
}

static PyTypeObject *
loop_type(PyObject *module)
{
    return ((ctask_state *)PyModule_GetState(module))->LoopType;
}

/* The loop's, for a thread that has a flag; NULL with an exception, and without the flag's buffer. */
static struct watchdog *
watchdog_for(LoopObj *loop, Py_buffer *stopped)
{
    struct watchdog *dog = NULL;
    if (stopped->len < 1) {
        PyErr_SetString(PyExc_ValueError, "the flag has no byte");
    }
    else {
        dog = watchdog_of(loop);
    }
    if (dog == NULL) {
        PyBuffer_Release(stopped);
    }
    return dog;
}

PyDoc_STRVAR(watchdog_wait_doc,
"_watchdog_wait($module, loop, seconds, flag, patience=inf, /)\n--\n\n"
"Wait until one callback has kept the loop for so long; the loop's thread is not kept.\n\n"
"Returns which it was (to be given to _watchdog_end()) and since when, in seconds of time.monotonic(); None after\n"
"_watchdog_stop() with this flag, a bytearray of one zero, and if the loop works after `patience` seconds.");

static PyObject *
watchdog_wait(PyObject *module, PyObject *args)
{
    LoopObj *loop;
    double seconds, patience = LONGEST_THRESHOLD;
    Py_buffer stopped;
    if (!PyArg_ParseTuple(args, "O!dw*|d", loop_type(module), &loop, &seconds, &stopped, &patience)) {
        return NULL;
    }
    if (!(seconds > 0 && seconds <= LONGEST_THRESHOLD)) {
        PyErr_SetString(PyExc_ValueError, "the threshold is more than 0 seconds and a day at most");
        PyBuffer_Release(&stopped);
        return NULL;
    }
    struct watchdog *dog = watchdog_for(loop, &stopped);
    if (dog == NULL) {
        return NULL;
    }
    look seen;
    int64_t since = 0;
    int64_t until = clock_nanoseconds() + (int64_t)(fmin(fmax(patience, 0), LONGEST_THRESHOLD) * 1e9);
    int blocked;
    PyThreadState *ts = PyEval_SaveThread();
    pthread_mutex_lock(&dog->mutex);
    blocked = wait_for_block(dog, stopped.buf, loop, (int64_t)(seconds * 1e9), until, &seen, &since);
    pthread_mutex_unlock(&dog->mutex);
    PyEval_RestoreThread(ts);
    PyBuffer_Release(&stopped);
    if (!blocked) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(nK)d", (Py_ssize_t)seen.callbacks, (unsigned long long)seen.iterations, since / 1e9);
}

PyDoc_STRVAR(watchdog_end_doc,
"_watchdog_end($module, loop, which, seconds, flag, /)\n--\n\n"
"Wait until that callback keeps the loop no longer, or for so many seconds.\n\n"
"Returns when it was seen to have ended, in seconds of time.monotonic(), up to a millisecond late; None if it goes on,\n"
"or after _watchdog_stop() with this flag.");

static PyObject *
watchdog_end(PyObject *module, PyObject *args)
{
    LoopObj *loop;
    Py_ssize_t callbacks;
    unsigned long long iterations;
    double seconds;
    Py_buffer stopped;
    if (!PyArg_ParseTuple(
            args, "O!(nK)dw*", loop_type(module), &loop, &callbacks, &iterations, &seconds, &stopped)) {
        return NULL;
    }
    struct watchdog *dog = watchdog_for(loop, &stopped);
    if (dog == NULL) {
        return NULL;
    }
    look seen = {.callbacks = (size_t)callbacks, .iterations = iterations, .works = 1};
    int64_t clock = clock_nanoseconds(),
            until = clock + (int64_t)(fmin(fmax(seconds, 0), LONGEST_THRESHOLD) * 1e9);
    int ended;
    PyThreadState *ts = PyEval_SaveThread();
    pthread_mutex_lock(&dog->mutex);
    stop_flag *flag = stopped.buf;
    while (!(ended = !is_the_same(look_at(loop), seen)) && !*flag && clock < until) {
        doze(dog, stopped.buf, clock + END_LOOK);
        clock = clock_nanoseconds();
    }
    ended = ended && !*flag;
    pthread_mutex_unlock(&dog->mutex);
    PyEval_RestoreThread(ts);
    PyBuffer_Release(&stopped);
    if (!ended) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)clock / 1e9);
}

PyDoc_STRVAR(watchdog_stop_doc,
"_watchdog_stop($module, loop, flag, /)\n--\n\n"
"End what waits with this flag in _watchdog_wait() or _watchdog_end(), for good: the flag is set.");

static PyObject *
watchdog_stop(PyObject *module, PyObject *args)
{
    LoopObj *loop;
    Py_buffer stopped;
    if (!PyArg_ParseTuple(args, "O!w*", loop_type(module), &loop, &stopped)) {
        return NULL;
    }
    struct watchdog *dog = watchdog_for(loop, &stopped);
    if (dog == NULL) {
        return NULL;
    }
    PyThreadState *ts = PyEval_SaveThread();
    pthread_mutex_lock(&dog->mutex);
    *(volatile char *)stopped.buf = 1;
    pthread_cond_broadcast(&dog->roused);
    pthread_mutex_unlock(&dog->mutex);
    PyEval_RestoreThread(ts);
    PyBuffer_Release(&stopped);
    Py_RETURN_NONE;
}

/* No methods of the loop: who goes through these and calls them is not to wait for ever. */
static PyMethodDef watchdog_functions[] = {
    {"_watchdog_wait", watchdog_wait, METH_VARARGS, watchdog_wait_doc},
    {"_watchdog_end", watchdog_end, METH_VARARGS, watchdog_end_doc},
    {"_watchdog_stop", watchdog_stop, METH_VARARGS, watchdog_stop_doc},
    {NULL, NULL, 0, NULL},
};

PART int
watchdog_setup(PyObject *module, ctask_state *Py_UNUSED(st))
{
    return PyModule_AddFunctions(module, watchdog_functions);
}
