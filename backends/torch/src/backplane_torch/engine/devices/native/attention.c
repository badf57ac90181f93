/* See `attention.h`; the loops are `attention_loops.h`'s, once for each kind of numbers. */

#include "attention.h"
#include "numbers.h"
#include "threads.h"

#include <math.h>

#define UNROLLED _Pragma("GCC unroll 8")

enum {
    LANES = 16,
    GROUP = 16,         /* positions */
    NUM_GROUPS = 8,     /* attended at once: what is looked at fits a processor's first cache */
    NUM_SCORES = GROUP * NUM_GROUPS,
    MAX_ROWS = 32,
    ROWS_AT_ONCE = 8    /* of which the sums are in registers */
};

typedef float Floats __attribute__((vector_size(64)));
typedef float LooseFloats __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Cell __attribute__((may_alias));

INLINE Floats vector_at(const void *address) {
    return *(const LooseFloats *)address;
}

/* e to the power of a value up to 0; 0 below -87. Errors are under 2 units in the last place. */
INLINE float exponential(float x) {
    const float round = 12582912.0f; /* 1.5 * 2^23: its last bits are then a whole number's */
    float shifted = x * 1.44269504f + round;
    float whole = shifted - round;
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    float power = float_of(bits_of(p) + (bits_of(shifted) << 23));
    return x < -87.0f ? 0.0f : power; /* what is no number stays none */
}

INLINE float capped(float score, float cap) {
    float small = exponential(-2.0f * fabsf(score / cap));
    return copysignf(cap * (1.0f - small) / (1.0f + small), score);
}

INLINE int64_t at_least(int64_t a, int64_t b) {
    return a > b ? a : b;
}

INLINE int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ── float32 ─────────────────────────────────────────────────────────────────────────── */

#define ON_PROCESSORS FOR_EACH_PROCESSOR
#define OF(name) name##_float32
#define PER_CELL 1
typedef float Number_float32;

INLINE Floats dot_float32(Floats sums, Floats cells, Cell cell) {
    return sums + cells * float_of(cell);
}

INLINE void put_numbers_float32(Number_float32 *target, const float *source, int64_t count) {
    memcpy(target, source, count * sizeof *source);
}

#include "attention_loops.h"

int bp_attends_float32(void) {
    return 1;
}

#undef OF
#undef PER_CELL
#undef ON_PROCESSORS

/* ── bfloat16 ────────────────────────────────────────────────────────────────────────── */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")

#include <immintrin.h>

#define ON_PROCESSORS
#define OF(name) name##_bfloat16
#define PER_CELL 2
typedef uint16_t Number_bfloat16 __attribute__((may_alias));

INLINE Floats dot_bfloat16(Floats sums, Floats cells, Cell cell) {
    return (Floats)_mm512_dpbf16_ps(
        (__m512)sums, (__m512bh)cells, (__m512bh)_mm512_set1_epi32((int)cell));
}

INLINE void put_numbers_bfloat16(Number_bfloat16 *target, const float *source, int64_t count) {
    int64_t place = 0;
    for (; place + LANES <= count; place += LANES) {
        __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(source + place));
        memcpy(target + place, &rounded, sizeof rounded);
    }
    if (place < count) {
        __mmask16 rest = (__mmask16)((1u << (count - place)) - 1u);
        __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, source + place));
        memcpy(target + place, &rounded, (count - place) * sizeof *target);
    }
}

#include "attention_loops.h"

#pragma GCC pop_options

int bp_attends_bfloat16(void) {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}

#else

int bp_attends_bfloat16(void) {
    return 0;
}

void bp_attend_bfloat16(const Attention *attention) {
    (void)attention;
}

#endif
