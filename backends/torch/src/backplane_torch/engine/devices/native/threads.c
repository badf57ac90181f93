/* See `threads.h`. A runtime of our own would bring threads that wait for CPUs which torch's hold. */

#include "threads.h"

#include <stdatomic.h>
#include <stddef.h>

/* What compilers make of `#pragma omp parallel`. GNU's runtime has it, and LLVM's and Intel's too. */
typedef void (*Parallel)(void (*function)(void *), void *data, unsigned num_threads, unsigned flags);

typedef struct {
    Task task;
    void *data;
    int64_t num_tasks;
    atomic_llong next;
} Work;

/* One torch in a process, and one pool. Without, the caller does all. */
static Parallel parallel = NULL;

void bp_use_threads(Parallel of_torch) {
    parallel = of_torch;
}

static void take_tasks(void *data) {
    Work *work = data;
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed);
        if (index >= work->num_tasks) return;
        work->task(work->data, index);
    }
}

void each_task(int64_t num_tasks, Task task, void *data) {
    Work work = {.task = task, .data = data, .num_tasks = num_tasks, .next = 0};
    /* 0 is as many as torch has set for this thread. Fewer would end the others, to be made anew. */
    if (parallel != NULL && num_tasks > 1)
        parallel(take_tasks, &work, 0, 0);
    else
        take_tasks(&work);
}
