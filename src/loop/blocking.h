/* Files that do not block while a transport has them, and do again afterwards. */

#ifndef CTASK_BLOCKING_H
#define CTASK_BLOCKING_H

#include "handles/objects.h"

#include <sys/stat.h>

/* One of them, as it was when it was taken.  Its owner keeps `loop` alive while it has it. */
typedef struct {
    struct list_node open; // among those of the interpreter
    const LoopObj *loop; // borrowed; whose transport has it
    dev_t device;
    ino_t inode;
    int fd;
    char restores; // it is to block again: it did before
} blocking_file;

PART int blocking_setup(PyObject *module, ctask_state *st);
/* Have the file of `status`, which `fd` is, not block.  -1 with OSError. */
PART int blocking_take(blocking_file *file, const LoopObj *loop, int fd, const struct stat *status);
/* From now on it is among those that block again at the end of the loop or of the program. */
PART void blocking_keep(ctask_state *st, blocking_file *file);
/* Does the descriptor still stand for the file that it stood for? */
PART int blocking_has_file(const blocking_file *file);
/* It is about to be closed, or was never used. */
PART void blocking_let_go(ctask_state *st, blocking_file *file);
/* This is a forked child: the files are its parent's, who has them block again. */
PART void blocking_leave_to_parent(ctask_state *st);
/* The loop is being closed; or, if that is NULL, the program ends. */
PART void blocking_let_all_go(ctask_state *st, const LoopObj *loop);

#endif
