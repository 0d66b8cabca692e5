/* When the ready queue had come how far: a loop's moments.

   The clock is read when the loop goes to sleep, which it does anyway, and after some turns.
   Of what is long ago a moment for each thirtieth of its age is kept: some hundred for a month. */

#include "loop/moments.h"

#define CLOSEST 1000000 // nanoseconds between two
#define AGE_SHARE 32

/* Those that are closer together than their age asks for leave. */
static void
thin_out(loop_moments *moments, int64_t now)
{
    loop_moment *all = moments->all;
    int kept = 1;
    for (int i = 1; i < moments->length - 1; i++) {
        if (all[i + 1].clock - all[kept - 1].clock > (now - all[i].clock) / AGE_SHARE) {
            all[kept++] = all[i];
        }
    }
    all[kept++] = all[moments->length - 1];
    moments->length = kept < MOMENTS ? kept : MOMENTS / 2; // as if the clock had jumped
}

PART void
moments_note(LoopObj *loop, int64_t now)
{
    loop_moments *moments = &loop->moments;
    size_t position = loop->ready.head;
    if (position == moments->last_position || now - moments->last_clock < CLOSEST) {
        return;
    }
    if (moments->all == NULL) {
        moments->all = malloc(MOMENTS * sizeof(loop_moment));
        if (moments->all == NULL) {
            return; // it will be said as if it were since a moment ago
        }
    }
    if (moments->length == MOMENTS) {
        thin_out(moments, now);
    }
    moments->all[moments->length++] = (loop_moment){position, now};
    moments->last_position = position;
    moments->last_clock = now;
}

PART int64_t
moments_find(const LoopObj *loop, size_t position, int64_t now)
{
    const loop_moments *moments = &loop->moments;
    int from = 0, to = moments->length;
    while (from < to) {
        int middle = (from + to) / 2;
        if (moments->all[middle].position < position) {
            from = middle + 1;
        }
        else {
            to = middle;
        }
    }
    return from < moments->length ? moments->all[from].clock : now;
}
