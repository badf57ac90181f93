/* RMS norms: what transformers' modules compute in seven of torch's operations, while a row is near.
 *
 * The roundings are the same. A row's numbers depend on nothing but the row. */

#include "numbers.h"
#include "threads.h"

#include <math.h>

typedef struct {
    int64_t num_rows, rows_per_task, width;
    Type type;
    int rounds_twice; /* to the rows' type also before the scale */
    float epsilon;
    const void *source;
    const float *scale;
    void *target;
} Rows;

INLINE float sum_of_squares(int64_t width, const void *row, Type type) {
    const uint16_t *halves = row;
    const float *floats = row;
    float sum = 0.0f;
#define EACH_ADDED _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < width; i++)
    if (type == BFLOAT16)
        EACH_ADDED sum += of_bfloat16(halves[i]) * of_bfloat16(halves[i]);
    else
        EACH_ADDED sum += floats[i] * floats[i];
#undef EACH_ADDED
    return sum;
}

INLINE void normalize(const Rows *rows, int64_t row, Type type, int rounds_twice) {
    int64_t width = rows->width, begin = row * width;
    const float *scale = rows->scale;
    const uint16_t *halves = (const uint16_t *)rows->source + begin;
    const float *floats = (const float *)rows->source + begin;
    uint16_t *half_target = (uint16_t *)rows->target + begin;
    float *float_target = (float *)rows->target + begin;
    const void *source = type == BFLOAT16 ? (const void *)halves : floats;
    float mean = sum_of_squares(width, source, type) / (float)width;
    float factor = 1.0f / sqrtf(mean + rows->epsilon);
    if (type == FLOAT32)
        EACH_NUMBER float_target[i] = floats[i] * factor * scale[i];
    else if (rounds_twice)
        EACH_NUMBER half_target[i] = to_bfloat16(
            of_bfloat16(to_bfloat16(of_bfloat16(halves[i]) * factor)) * scale[i]);
    else
        EACH_NUMBER half_target[i] = to_bfloat16(of_bfloat16(halves[i]) * factor * scale[i]);
}

FOR_EACH_PROCESSOR
static void normalize_some(void *data, int64_t index) {
    const Rows *rows = data;
    int64_t begin = index * rows->rows_per_task, end = begin + rows->rows_per_task;
    if (end > rows->num_rows) end = rows->num_rows;
    for (int64_t row = begin; row < end; row++) {
        if (rows->type == FLOAT32)
            normalize(rows, row, FLOAT32, 0);
        else if (rows->rounds_twice)
            normalize(rows, row, BFLOAT16, 1);
        else
            normalize(rows, row, BFLOAT16, 0);
    }
}

/* Rows [num_rows, width], float32 or bfloat16, to the same type: divided by the root of the mean of
 * their squares plus epsilon, times scale [width]. The target may be the source. */
void bp_normalize_rows(
    int64_t num_rows, int64_t width, int bfloat16, int rounds_twice, float epsilon,
    const void *source, const float *scale, void *target
) {
    int64_t worth = WORTH_A_THREAD / (width > 0 ? width : 1) + 1;
    Rows rows = {
        .num_rows = num_rows, .rows_per_task = worth, .width = width,
        .type = bfloat16 ? BFLOAT16 : FLOAT32, .rounds_twice = rounds_twice, .epsilon = epsilon,
        .source = source, .scale = scale, .target = target,
    };
    each_task((num_rows + worth - 1) / worth, normalize_some, &rows);
}
