/* Rows on their way into 8 bits and back: what `int8_linear.py` does around a product of integers.
 *
 * A row's numbers depend on nothing but the row. Loops are written so that compilers make vectors of
 * them.
 */

#include "numbers.h"
#include "threads.h"

#include <math.h>

/* 0 among unsigned values, and the most steps from there: as in `int8_linear.py`. */
enum { ZERO = 128, LARGEST = 127 };

/* The highest magnitude. As these are ordered so are their bits, with NaN above all. */
INLINE float highest(int64_t width, const void *row, Type type) {
    if (type == BFLOAT16) {
        const uint16_t *numbers = row;
        uint16_t most = 0;
        for (int64_t i = 0; i < width; i++) {
            uint16_t magnitude = numbers[i] & 0x7FFFu;
            most = magnitude > most ? magnitude : most;
        }
        return of_bfloat16(most);
    }
    const float *numbers = row;
    uint32_t most = 0;
    for (int64_t i = 0; i < width; i++) {
        uint32_t magnitude = bits_of(numbers[i]) & 0x7FFFFFFFu;
        most = magnitude > most ? magnitude : most;
    }
    return float_of(most);
}

INLINE uint8_t step_of(float number, float steps_per_one) {
    return (uint8_t)((int32_t)rintf(number * steps_per_one) + ZERO);
}

/* A row's values, and its scale. */
INLINE float quantize(int64_t width, const void *row, Type type, uint8_t *values) {
    float most = highest(width, row, type), scale = most / LARGEST;
    if (scale < 1e-30f) scale = 1e-30f;
    if (!(most < INFINITY)) { /* whatever the values are, times the scale they are no numbers */
        memset(values, ZERO, (size_t)width);
        return scale;
    }
    float steps_per_one = 1.0f / scale;
    if (type == BFLOAT16) {
        const uint16_t *numbers = row;
        EACH_NUMBER values[i] = step_of(of_bfloat16(numbers[i]), steps_per_one);
    } else {
        const float *numbers = row;
        EACH_NUMBER values[i] = step_of(numbers[i], steps_per_one);
    }
    return scale;
}

/* A row of a product, times the row's scale, with what is added to each output. */
INLINE void finish(
    int64_t width, const float *sums, float scale, const float *bias, Type type, void *row
) {
    uint16_t *halves = row;
    float *floats = row;
    if (type == BFLOAT16 && bias == NULL)
        EACH_NUMBER halves[i] = to_bfloat16(sums[i] * scale);
    else if (type == BFLOAT16)
        EACH_NUMBER halves[i] = to_bfloat16(sums[i] * scale + bias[i]);
    else if (bias == NULL)
        EACH_NUMBER floats[i] = sums[i] * scale;
    else
        EACH_NUMBER floats[i] = sums[i] * scale + bias[i];
}

typedef struct {
    int64_t num_rows, rows_per_task, width;
    Type type;
    const void *source;
    void *target;
    float *scales;
    const float *bias;
} Rows;

#define EACH_ROW_OF_TASK                                                            \
    int64_t begin = index * rows->rows_per_task, end = begin + rows->rows_per_task; \
    if (end > rows->num_rows) end = rows->num_rows;                                 \
    for (int64_t r = begin; r < end; r++)

FOR_EACH_PROCESSOR
static void quantize_some(void *data, int64_t index) {
    const Rows *rows = data;
    int64_t width = rows->width;
    EACH_ROW_OF_TASK {
        uint8_t *values = (uint8_t *)rows->target + r * width;
        if (rows->type == BFLOAT16)
            rows->scales[r] = quantize(
                width, (const uint16_t *)rows->source + r * width, BFLOAT16, values);
        else
            rows->scales[r] = quantize(
                width, (const float *)rows->source + r * width, FLOAT32, values);
    }
}

FOR_EACH_PROCESSOR
static void finish_some(void *data, int64_t index) {
    const Rows *rows = data;
    int64_t width = rows->width;
    EACH_ROW_OF_TASK {
        const float *sums = (const float *)rows->source + r * width;
        if (rows->type == BFLOAT16)
            finish(width, sums, rows->scales[r], rows->bias, BFLOAT16,
                   (uint16_t *)rows->target + r * width);
        else
            finish(width, sums, rows->scales[r], rows->bias, FLOAT32,
                   (float *)rows->target + r * width);
    }
}

static void share_out(Rows *rows, Task task) {
    int64_t worth = WORTH_A_THREAD / (rows->width > 0 ? rows->width : 1) + 1;
    rows->rows_per_task = worth;
    each_task((rows->num_rows + worth - 1) / worth, task, rows);
}

/* Rows [num_rows, width], float32 or bfloat16, to unsigned values around ZERO and a scale for each. */
void bp_quantize_rows(
    int64_t num_rows, int64_t width, int bfloat16, const void *source, uint8_t *values, float *scales
) {
    Rows rows = {
        .num_rows = num_rows, .width = width, .type = bfloat16 ? BFLOAT16 : FLOAT32,
        .source = source, .target = values, .scales = scales,
    };
    share_out(&rows, quantize_some);
}

/* Sums [num_rows, width], times each row's scale, plus a bias [width] or NULL, to float32 or bfloat16. */
void bp_finish_rows(
    int64_t num_rows, int64_t width, int bfloat16, const float *sums, const float *scales,
    const float *bias, void *target
) {
    Rows rows = {
        .num_rows = num_rows, .width = width, .type = bfloat16 ? BFLOAT16 : FLOAT32,
        .source = sums, .target = target, .scales = (float *)scales, .bias = bias,
    };
    share_out(&rows, finish_some);
}
