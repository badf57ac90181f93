/* Attention over a paged cache, for the CPU. Numbers are float32, or bfloat16 of which two share 32 bits.
 *
 * A cell is 32 bits: one float32, or two bfloat16. A cache holds groups of 16 positions, block by block.
 * Of a group's keys a cell belongs to one position, those of the 16 beside each other, for one cell of
 * the width after the other: [width / n][16] cells, where a cell has n numbers. Of its values a cell
 * belongs to one place in the width, for one or two positions: [16 / n][width] cells. So a vector of 16
 * cells, times one cell of a query or of weights, adds to 16 sums, with none to be made across lanes. */

#ifndef BACKPLANE_ATTENTION_H
#define BACKPLANE_ATTENTION_H

#include <stdint.h>

/* Tokens of one sequence that a step computes. */
typedef struct {
    int64_t begin;      /* first row of the batch */
    int64_t num_tokens;
    int64_t start;      /* position of the first */
    int64_t blocks;     /* where its block table begins in `tables` */
} Stretch;

/* Rows of a stretch that are attended together; a row is a query head of a token. */
typedef struct {
    int64_t stretch;
    int64_t first;      /* token * heads that share a key head + which of these */
    int64_t num_rows;   /* 1 to MAX_ROWS */
} Tile;

/* How far apart in memory, in numbers. */
typedef struct {
    int64_t head, token;
} Strides;

typedef struct {
    /* The layer. */
    void *keys, *values;            /* [key heads][blocks][block size / 16] groups */
    int64_t num_blocks, block_size;
    int64_t num_kv_heads, sharing;  /* sharing: query heads of a key head */
    int64_t key_width, value_width;
    int64_t window;                 /* 0: sees all before it */
    float scaling, softcap;         /* softcap 0: none */
    /* The step. */
    const Stretch *stretches;
    int64_t num_stretches;
    const Tile *tiles;
    int64_t num_tiles;
    const int64_t *tables;
    /* The call. */
    const void *query, *key, *value;
    Strides query_strides, key_strides, value_strides;
    const float *sinks;             /* [query heads], or NULL */
    void *output;                   /* [tokens][query heads][value width] */
} Attention;

/* Whether this processor computes it. */
int bp_attends_float32(void);
int bp_attends_bfloat16(void);

/* Write the step's keys and values, then attend. */
void bp_attend_float32(const Attention *attention);
void bp_attend_bfloat16(const Attention *attention);

#endif
