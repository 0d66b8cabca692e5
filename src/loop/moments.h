/* When the ready queue had come how far (moments.c). */

#ifndef CTASK_MOMENTS_H
#define CTASK_MOMENTS_H

#include "handles/objects.h"

/* Note the time, which is `now`, unless that was done a moment ago. */
PART void moments_note(LoopObj *loop, int64_t now);
/* When the ready queue's head had come to `position` at the latest, within a thirtieth of the time since then. */
PART int64_t moments_find(const LoopObj *loop, size_t position, int64_t now);

#endif
