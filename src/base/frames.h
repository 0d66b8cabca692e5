/* Where a coroutine is suspended, and what it awaits, without a frame object: what `cr_await` and `cr_frame` say, for who
   asks after each step (loop/trace.c).

   The fields are those of a generator object and its interpreter frame, which the internal headers have.  Only
   coroutines and generators of Python's own types are looked at, and only while they are suspended: then the top of the
   stack is what they await. */

#ifndef CTASK_FRAMES_H
#define CTASK_FRAMES_H

#include "base/compat.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wcast-function-type"
#include "internal/pycore_frame.h"
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#include "internal/pycore_stackref.h"
#endif
#pragma GCC diagnostic pop

#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030E0000
#define FRAMES_EXECUTABLE(frame) ((frame)->f_executable)
#elif PY_VERSION_HEX < 0x030D0000
#define FRAMES_EXECUTABLE(frame) ((PyObject *)(frame)->f_code)
#endif

/* The instruction at which a coroutine or generator is suspended, and its code, borrowed; 0 if it is something else,
   runs, or has not begun or has ended.  `awaited`: what it awaits, borrowed, or NULL if that does not show. */
static inline int
frames_look(PyObject *obj, PyCodeObject **code, const _Py_CODEUNIT **at, PyObject **awaited)
{
    *awaited = NULL;
    if (!Py_IS_TYPE(obj, &PyCoro_Type) && !Py_IS_TYPE(obj, &PyGen_Type)) {
        return 0;
    }
    PyGenObject *gen = (PyGenObject *)obj;
#if PY_VERSION_HEX >= 0x030D0000
    int awaits = gen->gi_frame_state == FRAME_SUSPENDED_YIELD_FROM;
    if (!awaits && gen->gi_frame_state != FRAME_SUSPENDED) {
        return 0;
    }
#else
    int awaits = Py_IS_TYPE(obj, &PyCoro_Type); // a generator's may be a bare yield
    if (gen->gi_frame_state != FRAME_SUSPENDED) {
        return 0;
    }
#endif
#if PY_VERSION_HEX >= 0x030E0000
    _PyInterpreterFrame *frame = &gen->gi_iframe;
    PyObject *executable = PyStackRef_AsPyObjectBorrow(frame->f_executable);
    *at = frame->instr_ptr;
    if (awaits) {
        *awaited = PyStackRef_AsPyObjectBorrow(frame->stackpointer[PY_VERSION_HEX >= 0x030F0000 ? -2 : -1]);
    }
#else
    _PyInterpreterFrame *frame = (_PyInterpreterFrame *)(void *)gen->gi_iframe;
    PyObject *executable = FRAMES_EXECUTABLE(frame);
#if PY_VERSION_HEX >= 0x030D0000
    *at = frame->instr_ptr;
#else
    *at = frame->prev_instr;
#endif
    if (awaits && (PY_VERSION_HEX >= 0x030D0000 || frame->stacktop > 0)) {
        *awaited = frame->localsplus[frame->stacktop - 1];
    }
#endif
    *code = (PyCodeObject *)executable;
    return 1;
}

/* Of an instruction in its code, in bytes. */
static inline int
frames_offset(const PyCodeObject *code, const _Py_CODEUNIT *at)
{
    return (int)((const char *)at - (const char *)code->co_code_adaptive);
}

#endif
