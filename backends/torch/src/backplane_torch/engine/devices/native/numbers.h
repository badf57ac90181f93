/* float32 and bfloat16, and loops over them that compilers make vectors of. */

#ifndef BACKPLANE_NUMBERS_H
#define BACKPLANE_NUMBERS_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__ELF__)
/* Compiled once for each generation of processors; the loader takes the best. */
#if __GNUC__ >= 12
#define GENERATIONS "arch=x86-64-v4", "arch=x86-64-v3"
#else /* which knows no others by name */
#define GENERATIONS "arch=skylake-avx512", "arch=haswell"
#endif
#define FOR_EACH_PROCESSOR __attribute__((target_clones(GENERATIONS, "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))
#define EACH_NUMBER _Pragma("omp simd") for (int64_t i = 0; i < width; i++)

/* Numbers that a thread computes in some 10 microseconds, beside which it is little to wake one. */
enum { WORTH_A_THREAD = 1 << 16 };

typedef enum { FLOAT32, BFLOAT16 } Type;

INLINE float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float of_bfloat16(uint16_t number) {
    return float_of((uint32_t)number << 16);
}

INLINE uint16_t to_bfloat16(float value) {
    uint32_t bits = bits_of(value);
    /* The nearest, the even one of two; what is no number must not round to infinity. */
    uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return value == value ? (uint16_t)nearest : 0x7FC0u;
}

#endif
