/* Rows times a weight, finished: scales, bias, and rounding. Rows of unsigned 8-bit values by signed
 * ones, for processors with 512-bit VNNI; or of bfloat16, for those that multiply it in 512 bits.
 *
 * A cell is 32 bits: four 8-bit values, or two of bfloat16. A weight lies in panels of 32 outputs,
 * [out / 32][cells][32] cells, so that one vector has a cell of 16 outputs, and a panel is read from end
 * to end. A few rows at a time, whose sums stay in registers, pass over a panel; as they do, the next one
 * is fetched. */

#include "threads.h"

#include <stddef.h>

typedef struct {
    int64_t num_rows, cells, out;   /* cells of a row; out: a multiple of 32 */
    int64_t panels_per_task;
    const uint8_t *rows;            /* [rows][cells]; of 8 bits: around 128 */
    const float *row_scales;        /* [rows]; of 8 bits */
    const uint8_t *weight;
    const int32_t *offsets;         /* [out]; of 8 bits: -128 times the sum of an output's weights */
    const float *scales, *bias;     /* [out]; scales: of 8 bits; no bias is NULL */
    int64_t bfloat16;               /* what the output is; else float32 */
    void *output;                   /* [rows][out] */
} Product;

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <string.h>

#define WITH_VECTORS __attribute__((target("avx512f,avx512bw,avx512vl")))
#define INLINE static inline __attribute__((always_inline)) WITH_VECTORS
#define UNROLLED _Pragma("GCC unroll 12")

enum {
    LANES = 16,
    VECTORS = 2,                    /* of a panel */
    PANEL = VECTORS * LANES,
    CELL = 4,                       /* bytes */
    STEP = PANEL * CELL,            /* bytes of a panel for a cell of a row */
    ROWS_AT_ONCE = 12,              /* 24 sums, 2 vectors of weights and 1 of a row: of 32 registers */
    ROWS_OF_TASK = 8 * ROWS_AT_ONCE /* which stay in the second cache, beside a panel */
};

/* What cells hold; known when compiled, so that each has loops of its own. */
typedef enum { EIGHT_BITS, BFLOAT16 } Kind;

static int has_vectors(void) {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

int bp_multiplies_int8(void) {
    return __builtin_cpu_supports("avx512vnni") && has_vectors();
}

int bp_multiplies_bfloat16(void) {
    return __builtin_cpu_supports("avx512bf16") && has_vectors();
}

/* Instructions by name: for the intrinsics, GCC 12 copies every sum before it adds to it. */
INLINE void add_products(const Kind kind, __m512i *sums, __m512i row, __m512i weights) {
    if (kind == EIGHT_BITS)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(*sums) : "v"(row), "v"(weights));
    else
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(*sums) : "v"(row), "v"(weights));
}

INLINE void put(const Product *p, int64_t place, __m512 numbers) {
    if (!p->bfloat16) {
        _mm512_storeu_ps((float *)p->output + place, numbers);
        return;
    }
    /* The nearest, the even one of two; what is no number must not round to infinity. */
    __m512i bits = _mm512_castps_si512(numbers);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
    __m512i nearest = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    __mmask16 none = _mm512_cmp_ps_mask(numbers, numbers, _CMP_UNORD_Q);
    nearest = _mm512_mask_mov_epi32(nearest, none, _mm512_set1_epi32(0x7FC0));
    _mm256_storeu_si256(
        (__m256i *)((uint16_t *)p->output + place), _mm512_cvtepi32_epi16(nearest));
}

/* `rows` rows times a panel. Each step fetches what is `ahead`, and that moves on by so many bytes. */
INLINE void multiply_tile(
    const Kind kind, const int rows, const Product *p, int64_t first, int64_t panel,
    const uint8_t *ahead, int64_t moves
) {
    __m512i sums[ROWS_AT_ONCE][VECTORS];
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < VECTORS; v++)
            sums[r][v] = kind == EIGHT_BITS
                ? _mm512_loadu_si512(p->offsets + panel * PANEL + v * LANES)
                : _mm512_setzero_si512();
    /* A pointer for every third row: each of its own would be more than there are registers. */
    const int64_t row_size = p->cells * CELL;
    const uint8_t *thirds[ROWS_AT_ONCE / 3];
    UNROLLED for (int r = 0; r < rows; r += 3) thirds[r / 3] = p->rows + (first + r) * row_size;
    const uint8_t *weights = p->weight + panel * PANEL * row_size;
    for (int64_t i = 0; i < p->cells; i++, weights += STEP, ahead += moves) {
        __m512i left = _mm512_loadu_si512(weights);
        __m512i right = _mm512_loadu_si512(weights + STEP / 2);
        _mm_prefetch((const char *)ahead, _MM_HINT_T0);
        _mm_prefetch((const char *)ahead + STEP / 2, _MM_HINT_T0);
        UNROLLED for (int r = 0; r < rows; r++) {
            int32_t cell;
            memcpy(&cell, thirds[r / 3] + r % 3 * row_size, sizeof cell);
            __m512i row = _mm512_set1_epi32(cell);
            add_products(kind, &sums[r][0], row, left);
            add_products(kind, &sums[r][1], row, right);
        }
        UNROLLED for (int r = 0; r < rows; r += 3) thirds[r / 3] += CELL;
    }
    UNROLLED for (int v = 0; v < VECTORS; v++) {
        const int64_t place = panel * PANEL + v * LANES;
        UNROLLED for (int r = 0; r < rows; r++) {
            __m512 numbers = _mm512_castsi512_ps(sums[r][v]);
            if (kind == EIGHT_BITS) {
                numbers = _mm512_cvtepi32_ps(sums[r][v]);
                numbers = _mm512_mul_ps(numbers, _mm512_loadu_ps(p->scales + place));
                numbers = _mm512_mul_ps(numbers, _mm512_set1_ps(p->row_scales[first + r]));
            }
            if (p->bias != NULL) numbers = _mm512_add_ps(numbers, _mm512_loadu_ps(p->bias + place));
            put(p, (first + r) * p->out + place, numbers);
        }
    }
}

static int64_t tasks_of_rows(const Product *p) {
    return (p->num_rows + ROWS_OF_TASK - 1) / ROWS_OF_TASK;
}

/* Some panels, for some rows. */
INLINE void multiply_some(const Kind kind, const Product *p, int64_t index) {
    const int64_t row_tasks = tasks_of_rows(p), panel_size = p->cells * STEP;
    int64_t panel = index / row_tasks * p->panels_per_task, last_panel = panel + p->panels_per_task;
    if (last_panel > p->out / PANEL) last_panel = p->out / PANEL;
    int64_t first = index % row_tasks * ROWS_OF_TASK, num_rows = p->num_rows - first;
    if (num_rows > ROWS_OF_TASK) num_rows = ROWS_OF_TASK;
    const int64_t tiles = (num_rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE; /* of about equal heights */
    for (; panel < last_panel; panel++) {
        const int64_t next = panel + 1 < last_panel ? panel + 1 : panel;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t begin = num_rows * tile / tiles, end = num_rows * (tile + 1) / tiles;
            const uint8_t *ahead = p->weight + next * panel_size + panel_size * tile / tiles;
#define OF_HEIGHT(rows) \
    case rows: multiply_tile(kind, rows, p, first + begin, panel, ahead, STEP / tiles); break;
            switch (end - begin) {
                OF_HEIGHT(1) OF_HEIGHT(2) OF_HEIGHT(3) OF_HEIGHT(4) OF_HEIGHT(5) OF_HEIGHT(6)
                OF_HEIGHT(7) OF_HEIGHT(8) OF_HEIGHT(9) OF_HEIGHT(10) OF_HEIGHT(11) OF_HEIGHT(12)
            }
#undef OF_HEIGHT
        }
    }
}

WITH_VECTORS static void multiply_some_int8(void *data, int64_t index) {
    multiply_some(EIGHT_BITS, data, index);
}

WITH_VECTORS static void multiply_some_bfloat16(void *data, int64_t index) {
    multiply_some(BFLOAT16, data, index);
}

static void multiply(Product *product, Task some) {
    int64_t panels = product->out / PANEL, each = product->panels_per_task;
    each_task((panels + each - 1) / each * tasks_of_rows(product), some, product);
}

void bp_multiply_int8(Product *product) {
    multiply(product, multiply_some_int8);
}

void bp_multiply_bfloat16(Product *product) {
    multiply(product, multiply_some_bfloat16);
}

#else /* no such processor, or a compiler that is not told of it */

int bp_multiplies_int8(void) {
    return 0;
}

int bp_multiplies_bfloat16(void) {
    return 0;
}

void bp_multiply_int8(Product *product) {
    (void)product;
}

void bp_multiply_bfloat16(Product *product) {
    (void)product;
}

#endif
