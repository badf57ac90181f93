/* Included by `attention.c` for each kind of numbers, `OF(Number)`, of which a cell has `PER_CELL`.
 *
 * The order of sums is that of the online softmax (Milakov and Gimelshein 2018; Dao et al., FlashAttention,
 * 2022): scores of some positions at a time, each row's highest and sum carried on. */

/* Where a stretch's positions are, for one key head. */
typedef struct {
    const int64_t *table;
    Cell *keys, *values;        /* of the head's block 0 */
    int64_t key_cells;          /* of a position */
    int64_t block_size, key_block, value_block;  /* the latter: cells of a block */
    int64_t value_width;
} OF(Pages);

INLINE OF(Pages) OF(pages_of)(const Attention *a, const Stretch *stretch, int64_t head) {
    OF(Pages) pages = {
        .table = a->tables + stretch->blocks,
        .key_cells = (a->key_width + PER_CELL - 1) / PER_CELL,
        .block_size = a->block_size,
        .value_width = a->value_width,
    };
    pages.key_block = a->block_size * pages.key_cells;
    pages.value_block = a->block_size / PER_CELL * a->value_width;
    pages.keys = (Cell *)a->keys + head * a->num_blocks * pages.key_block;
    pages.values = (Cell *)a->values + head * a->num_blocks * pages.value_block;
    return pages;
}

/* Of the group that begins at a position. */
INLINE Cell *OF(keys_at)(const OF(Pages) *pages, int64_t position) {
    int64_t block = pages->table[position / pages->block_size];
    return pages->keys + block * pages->key_block
        + position % pages->block_size * pages->key_cells;
}

INLINE Cell *OF(values_at)(const OF(Pages) *pages, int64_t position) {
    int64_t block = pages->table[position / pages->block_size];
    return pages->values + block * pages->value_block
        + position % pages->block_size / PER_CELL * pages->value_width;
}

/* ── writing ─────────────────────────────────────────────────────────────────────────── */

/* Keys and values of a stretch, for one key head. */
static void OF(write_stretch)(void *data, int64_t index) {
    const Attention *a = data;
    int64_t head = index % a->num_kv_heads;
    const Stretch *stretch = a->stretches + index / a->num_kv_heads;
    OF(Pages) pages = OF(pages_of)(a, stretch, head);
    for (int64_t token = 0; token < stretch->num_tokens; token++) {
        int64_t position = stretch->start + token, row = stretch->begin + token;
        int64_t lane = position % GROUP;
        const OF(Number) *key = (const OF(Number) *)a->key
            + head * a->key_strides.head + row * a->key_strides.token;
        const OF(Number) *value = (const OF(Number) *)a->value
            + head * a->value_strides.head + row * a->value_strides.token;
        OF(Number) *keys = (OF(Number) *)OF(keys_at)(&pages, position - lane);
        OF(Number) *values = (OF(Number) *)OF(values_at)(&pages, position - lane);
        if (!lane)
            /* Weights of positions to come are 0, but 0 times what lies there may be no number. */
            memset(values, 0, GROUP / PER_CELL * a->value_width * sizeof(Cell));
        for (int64_t place = 0; place < a->key_width; place++)
            keys[(place / PER_CELL * GROUP + lane) * PER_CELL + place % PER_CELL] = key[place];
        if (a->key_width % PER_CELL)
            keys[((pages.key_cells - 1) * GROUP + lane) * PER_CELL + PER_CELL - 1] = 0;
        values += lane / PER_CELL * a->value_width * PER_CELL + lane % PER_CELL;
        for (int64_t place = 0; place < a->value_width; place++)
            values[place * PER_CELL] = value[place];
    }
}

/* ── attending ───────────────────────────────────────────────────────────────────────── */

/* Scores of `rows` queries, [rows][key cells], at two groups of positions, [rows][NUM_SCORES]. */
INLINE void OF(score)(
    const int rows, const Cell *queries, int64_t key_cells,
    const Cell *first, const Cell *second, float *scores
) {
    Floats sums[ROWS_AT_ONCE][2];
    UNROLLED for (int row = 0; row < rows; row++) sums[row][0] = sums[row][1] = (Floats){0};
    for (int64_t place = 0; place < key_cells; place++) {
        Floats left = vector_at(first + place * GROUP), right = vector_at(second + place * GROUP);
        UNROLLED for (int row = 0; row < rows; row++) {
            Cell query = queries[row * key_cells + place];
            sums[row][0] = OF(dot)(sums[row][0], left, query);
            sums[row][1] = OF(dot)(sums[row][1], right, query);
        }
    }
    UNROLLED for (int row = 0; row < rows; row++) {
        memcpy(scores + row * NUM_SCORES, &sums[row][0], sizeof(Floats));
        memcpy(scores + row * NUM_SCORES + GROUP, &sums[row][1], sizeof(Floats));
    }
}

/* Add to `vectors` vectors of the width, of `rows` rows: weights, [rows][NUM_SCORES], by values. */
INLINE void OF(add_values)(
    const int rows, const int vectors, const Cell *weights, int64_t num_groups,
    Cell *const *groups, int64_t width, Floats *output, int64_t output_vectors
) {
    Floats sums[ROWS_AT_ONCE][2];
    UNROLLED for (int row = 0; row < rows; row++)
        UNROLLED for (int vector = 0; vector < vectors; vector++)
            sums[row][vector] = output[row * output_vectors + vector];
    for (int64_t group = 0; group < num_groups; group++) {
        const Cell *values = groups[group];
        for (int64_t place = 0; place < GROUP / PER_CELL; place++, values += width) {
            Floats left = vector_at(values), right = left;
            if (vectors > 1) right = vector_at(values + LANES);
            UNROLLED for (int row = 0; row < rows; row++) {
                Cell weight =
                    weights[(row * NUM_SCORES + group * GROUP) / PER_CELL + place];
                sums[row][0] = OF(dot)(sums[row][0], left, weight);
                if (vectors > 1) sums[row][1] = OF(dot)(sums[row][1], right, weight);
            }
        }
    }
    UNROLLED for (int row = 0; row < rows; row++)
        UNROLLED for (int vector = 0; vector < vectors; vector++)
            output[row * output_vectors + vector] = sums[row][vector];
}

/* The same for whole tiles, as many rows at once as there are registers for. */
#define FOR_ROWS(num_rows, call)                                     \
    for (int64_t row = 0; row < (num_rows); row += ROWS_AT_ONCE)     \
        switch (at_most((num_rows) - row, ROWS_AT_ONCE)) {           \
            case 1: call(1); break;                                  \
            case 2: call(2); break;                                  \
            case 3: call(3); break;                                  \
            case 4: call(4); break;                                  \
            case 5: call(5); break;                                  \
            case 6: call(6); break;                                  \
            case 7: call(7); break;                                  \
            default: call(8); break;                                 \
        }

/* Rows of one tile, while it is attended. */
typedef struct {
    int64_t num_rows;
    int64_t first_seen[MAX_ROWS], last_seen[MAX_ROWS];
    float highest[MAX_ROWS], sum[MAX_ROWS];
    float scores[MAX_ROWS * NUM_SCORES] __attribute__((aligned(64)));
    Cell weights[MAX_ROWS * NUM_SCORES / PER_CELL] __attribute__((aligned(64)));
} OF(Rows);

/* Scores to weights; what was summed so far is brought to the new highest score. */
INLINE void OF(weigh)(
    const Attention *a, OF(Rows) *rows, int64_t position, int64_t num_groups,
    Floats *output, int64_t output_vectors
) {
    int64_t num_scores = num_groups * GROUP;
    for (int64_t row = 0; row < rows->num_rows; row++) {
        float *scores = rows->scores + row * NUM_SCORES;
        const float scaling = a->scaling, cap = a->softcap;
        if (cap > 0.0f) {
            _Pragma("omp simd")
            for (int64_t k = 0; k < num_scores; k++) scores[k] = capped(scores[k] * scaling, cap);
        } else {
            _Pragma("omp simd")
            for (int64_t k = 0; k < num_scores; k++) scores[k] *= scaling;
        }
        /* Relative to the first of these positions. */
        int64_t first = rows->first_seen[row] - position, last = rows->last_seen[row] - position;
        if (first > 0 || last < num_scores - 1) {
            int32_t from = (int32_t)at_most(first, num_scores), to = (int32_t)at_least(last, -1);
            _Pragma("omp simd")
            for (int32_t k = 0; k < num_scores; k++)
                scores[k] = k < from || k > to ? -INFINITY : scores[k];
        }
        float highest = rows->highest[row];
        _Pragma("omp simd reduction(max : highest)")
        for (int64_t k = 0; k < num_scores; k++) highest = scores[k] > highest ? scores[k] : highest;
        if (highest == -INFINITY) { /* it sees none of them */
            memset(rows->weights + row * NUM_SCORES / PER_CELL, 0, NUM_SCORES / PER_CELL * sizeof(Cell));
            continue;
        }
        float sum = 0.0f;
        _Pragma("omp simd reduction(+ : sum)")
        for (int64_t k = 0; k < num_scores; k++) {
            scores[k] = exponential(scores[k] - highest);
            sum += scores[k];
        }
        OF(put_numbers)(
            (OF(Number) *)(rows->weights + row * NUM_SCORES / PER_CELL), scores, num_scores);
        if (highest != rows->highest[row]) {
            float share = exponential(rows->highest[row] - highest);
            rows->sum[row] *= share;
            for (int64_t k = 0; k < output_vectors; k++)
                output[row * output_vectors + k] *= share;
            rows->highest[row] = highest;
        }
        rows->sum[row] += sum;
    }
}

/* One tile, for one key head. */
ON_PROCESSORS
static void OF(attend_tile)(void *data, int64_t index) {
    const Attention *a = data;
    int64_t head = index % a->num_kv_heads, sharing = a->sharing;
    const Tile *tile = a->tiles + index / a->num_kv_heads;
    const Stretch *stretch = a->stretches + tile->stretch;
    OF(Pages) pages = OF(pages_of)(a, stretch, head);
    int64_t output_vectors = (a->value_width + LANES - 1) / LANES;
    Cell queries[MAX_ROWS * pages.key_cells];
    Floats output[MAX_ROWS * output_vectors];
    OF(Rows) rows;
    rows.num_rows = tile->num_rows;
    memset(output, 0, rows.num_rows * output_vectors * sizeof *output);
    for (int64_t row = 0; row < rows.num_rows; row++) {
        int64_t token = (tile->first + row) / sharing;
        int64_t query_head = head * sharing + (tile->first + row) % sharing;
        const OF(Number) *query = (const OF(Number) *)a->query
            + query_head * a->query_strides.head + (stretch->begin + token) * a->query_strides.token;
        queries[(row + 1) * pages.key_cells - 1] = 0;
        memcpy(queries + row * pages.key_cells, query, a->key_width * sizeof *query);
        int64_t position = stretch->start + token;
        rows.last_seen[row] = position;
        rows.first_seen[row] = a->window ? at_least(0, position - a->window + 1) : 0;
        rows.highest[row] = a->sinks ? a->sinks[query_head] : -INFINITY;
        rows.sum[row] = a->sinks ? 1.0f : 0.0f;
    }
    int64_t end = rows.last_seen[rows.num_rows - 1] + 1;
    for (int64_t position = rows.first_seen[0] / GROUP * GROUP; position < end;) {
        int64_t num_groups = at_most(NUM_GROUPS, (end - position + GROUP - 1) / GROUP);
        Cell *keys[NUM_GROUPS + 1], *values[NUM_GROUPS];
        for (int64_t group = 0; group < num_groups; group++) {
            keys[group] = OF(keys_at)(&pages, position + group * GROUP);
            values[group] = OF(values_at)(&pages, position + group * GROUP);
        }
        keys[num_groups] = keys[num_groups - 1]; /* the last of an odd number is scored twice */
        for (int64_t group = 0; group < num_groups; group += 2) {
#define SCORE(count)                                                                        \
    OF(score)(count, queries + row * pages.key_cells, pages.key_cells, keys[group],         \
              keys[group + 1], rows.scores + row * NUM_SCORES + group * GROUP)
            FOR_ROWS(rows.num_rows, SCORE)
#undef SCORE
        }
        OF(weigh)(a, &rows, position, num_groups, output, output_vectors);
        for (int64_t vector = 0; vector < output_vectors; vector += 2) {
#define ADD_VALUES(count)                                                                   \
    if (vector + 1 < output_vectors)                                                        \
        OF(add_values)(count, 2, rows.weights + row * NUM_SCORES / PER_CELL, num_groups,    \
                       values, a->value_width, output + row * output_vectors + vector,      \
                       output_vectors);                                                     \
    else                                                                                    \
        OF(add_values)(count, 1, rows.weights + row * NUM_SCORES / PER_CELL, num_groups,    \
                       values, a->value_width, output + row * output_vectors + vector,      \
                       output_vectors)
            FOR_ROWS(rows.num_rows, ADD_VALUES)
#undef ADD_VALUES
            for (int64_t group = 0; group < num_groups; group++) values[group] += 2 * LANES;
        }
        position += num_groups * GROUP;
    }
    for (int64_t row = 0; row < rows.num_rows; row++) {
        int64_t token = (tile->first + row) / sharing;
        int64_t query_head = head * sharing + (tile->first + row) % sharing;
        float share = 1.0f / rows.sum[row];
        for (int64_t k = 0; k < output_vectors; k++) output[row * output_vectors + k] *= share;
        OF(Number) *target = (OF(Number) *)a->output
            + ((stretch->begin + token) * a->num_kv_heads * sharing + query_head) * a->value_width;
        OF(put_numbers)(target, (const float *)(output + row * output_vectors), a->value_width);
    }
}

void OF(bp_attend)(const Attention *attention) {
    void *data = (void *)attention; /* read alone */
    int64_t heads = attention->num_kv_heads;
    each_task(attention->num_stretches * heads, OF(write_stretch), data);
    each_task(attention->num_tiles * heads, OF(attend_tile), data);
}
#undef FOR_ROWS
