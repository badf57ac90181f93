/* The threads that torch computes with, for what computes between its operations. */

#ifndef BACKPLANE_THREADS_H
#define BACKPLANE_THREADS_H

#include <stdint.h>

typedef void (*Task)(void *data, int64_t index);

/* Does tasks 0 to num_tasks - 1, each once, in any order: whichever thread is free takes the next.
 * Returns when all are done. Waking threads takes some microseconds: a task should last longer. */
void each_task(int64_t num_tasks, Task task, void *data);

#endif
