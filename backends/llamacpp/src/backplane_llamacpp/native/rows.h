/* Passes over a row as wide as the vocabulary; `sample.c` makes tokens of them.
 *
 * Weights are numbers from 0 to 1. Rows of weights and keys are padded with 0 to whole lanes. Sums
 * are float within a block, double over blocks.
 */

#ifndef BACKPLANE_ROWS_H
#define BACKPLANE_ROWS_H

#include <stdint.h>

enum { LANES = 64, BLOCK = 64 * LANES };

typedef struct {
    float value;
    int32_t id;
} candidate;

/* The index of the highest, the lowest among equals; -1 where one of them is not a number. */
int64_t bp_argmax(int64_t n, const float *logits);

/* The logarithm of the sum of all exponentials; not a number where the row has none. */
double bp_log_sum(int64_t n, const float *logits);

/* exp((x - highest) * factor) of each logit, and 0 up to whole lanes; their sum. */
double bp_weigh(int64_t n, const float *logits, float highest, float factor, float *weights);

/* The k highest, best first, the lowest ids among equals. There are at least k; none is NaN. */
void bp_top(int64_t n, const float *logits, int64_t k, candidate *best);

/* Keep the fewest weights that reach `mass` of a sum of `total`, those of the highest keys, the
 * lowest ids among equals; the others become 0. Keys are from 0 to 1, and 0 where the weight is; they
 * may be the weights themselves. -1 is no memory for what lies at the edge. */
int bp_keep_best(int64_t n, const float *keys, float *weights, double mass, double total);

/* Cut weights below a bound; the sum of the others. */
double bp_keep_from(int64_t n, float *weights, float least);

/* Of each weight a key: 1 where its surprise is the entropy, less the further it lies from there. */
void bp_typicality(int64_t n, const float *weights, double total, float *keys);

/* The first index at which the cumulative share of the weights exceeds `number`; should rounding
 * have left none, the last that weighs anything. `sums` has room for one a block. */
int64_t bp_index_at(int64_t n, const float *weights, double number, double *sums);

/* A copy of the logits, -inf where the mask has no bit, the lowest of each byte first. */
void bp_mask(int64_t n, const float *logits, const uint8_t *mask, int64_t num_bytes, float *masked);

/* A copy of the logits, with a bonus for those that are green under a key: `is_green` of
 * backplane_core.watermark. */
void bp_watermark(
    int64_t n, const float *logits, uint32_t key, uint32_t below, float bonus, float *marked);

#endif
