/* See `rows.h`. Loops are written so that compilers make vectors of them. */

#include "rows.h"

#include <math.h>
#include <stdlib.h>
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

enum { SAMPLE = 4096, BIN_SHIFT = 18, MAX_BETWEEN = 256, NUM_BOUNDS = 4 };
/* One above the bits of 1.0f: as positive floats are ordered, so are their bits. */
#define ABOVE_ALL 0x3F800001u
#define NUM_BINS ((ABOVE_ALL >> BIN_SHIFT) + 1)

/* The lanes of a loop do not wait for each other. */
#define EACH_LANE _Pragma("omp simd") for (int k = 0; k < LANES; k++)

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

INLINE double sum_of_lanes(const float *lanes) {
    double sum = 0;
    for (int k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
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
    return x > -87.0f ? float_of(bits_of(p) + (bits_of(shifted) << 23)) : 0.0f;
}

/* The natural logarithm of a positive normal number, to about 2 units in the last place. */
INLINE float logarithm(float x) {
    uint32_t bits = bits_of(x);
    /* A mantissa from sqrt(1/2) to sqrt(2). */
    int32_t exponent = (int32_t)((bits - 0x3F3504F3u) & 0xFF800000u);
    float m = float_of(bits - (uint32_t)exponent) - 1.0f, e = (float)(exponent >> 23);
    float p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float square = m * m;
    return m + (p * m * square - e * 2.12194440e-4f - 0.5f * square) + e * 0.693359375f;
}

INLINE int64_t whole_lanes(int64_t n) {
    return (n + LANES - 1) / LANES * LANES;
}

/* The highest of up to a block, -inf of nothing; not a number where one of them is not. */
INLINE float highest_of(const float *values, int64_t size) {
    float lanes[LANES], highest = -INFINITY;
    int bad[LANES] = {0};
    int64_t i = 0;
    for (int k = 0; k < LANES; k++) lanes[k] = -INFINITY;
    for (; i + LANES <= size; i += LANES) {
        EACH_LANE {
            float x = values[i + k];
            lanes[k] = x > lanes[k] ? x : lanes[k];
            bad[k] |= x != x;
        }
    }
    for (int k = 0; k < LANES; k++) {
        if (bad[k]) return NAN;
        if (lanes[k] > highest) highest = lanes[k];
    }
    for (; i < size; i++) {
        if (values[i] != values[i]) return NAN;
        if (values[i] > highest) highest = values[i];
    }
    return highest;
}

FOR_EACH_PROCESSOR int64_t bp_argmax(int64_t n, const float *logits) {
    int64_t best = 0;
    float highest = -INFINITY;
    for (int64_t start = 0; start < n; start += BLOCK) {
        float here = highest_of(logits + start, n - start < BLOCK ? n - start : BLOCK);
        if (here != here) return -1;
        if (here > highest) highest = here, best = start;
    }
    while (logits[best] != highest) best++;
    return best;
}

/* Each block is read from memory once: its highest first, then the sum beside that. */
FOR_EACH_PROCESSOR double bp_log_sum(int64_t n, const float *logits) {
    double sum = 0;
    float highest = -INFINITY;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t size = n - start < BLOCK ? n - start : BLOCK, i = 0;
        const float *block = logits + start;
        float here = highest_of(block, size), lanes[LANES] = {0};
        if (here != here || here == INFINITY) return NAN;
        if (here == -INFINITY) continue;
        for (; i + LANES <= size; i += LANES) EACH_LANE lanes[k] += exponential(block[i + k] - here);
        for (; i < size; i++) lanes[0] += exponential(block[i] - here);
        double inside = sum_of_lanes(lanes);
        if (here > highest) {
            sum = sum * exp((double)highest - here) + inside;
            highest = here;
        } else {
            sum += inside * exp((double)here - highest);
        }
    }
    return highest == -INFINITY ? NAN : highest + log(sum);
}

FOR_EACH_PROCESSOR double bp_weigh(
    int64_t n, const float *logits, float highest, float factor, float *weights) {
    double sum = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK, i = start;
        float lanes[LANES] = {0};
        for (; i + LANES <= end; i += LANES) {
            EACH_LANE {
                float made = exponential((logits[i + k] - highest) * factor);
                weights[i + k] = made;
                lanes[k] += made;
            }
        }
        for (; i < end; i++) lanes[0] += weights[i] = exponential((logits[i] - highest) * factor);
        sum += sum_of_lanes(lanes);
    }
    for (int64_t i = n; i < whole_lanes(n); i++) weights[i] = 0.0f;
    return sum;
}

/* The sums of the weights whose keys are at least as high as each of some bounds. */
INLINE void sums_from(
    int64_t n, const float *keys, const float *weights, const float *bounds, double *sums) {
    for (int j = 0; j < NUM_BOUNDS; j++) sums[j] = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        float above[NUM_BOUNDS][LANES] = {{0}};
        for (int64_t i = start; i < end; i += LANES)
            for (int j = 0; j < NUM_BOUNDS; j++)
                EACH_LANE above[j][k] += keys[i + k] >= bounds[j] ? weights[i + k] : 0.0f;
        for (int j = 0; j < NUM_BOUNDS; j++) sums[j] += sum_of_lanes(above[j]);
    }
}

/* How many keys lie between two bounds. */
INLINE int64_t count_between(int64_t n, const float *keys, float most, float least) {
    int64_t found = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        int between[LANES] = {0};
        for (int64_t i = start; i < end; i += LANES)
            EACH_LANE between[k] += (keys[i + k] >= least) & (keys[i + k] < most);
        for (int k = 0; k < LANES; k++) found += between[k];
    }
    return found;
}

/* Bounds around where the end should lie, from a histogram of a sample; descending bits. */
static void guess(
    int64_t n, const float *keys, const float *weights, double mass, double total, uint32_t *bounds) {
    static const double doubts[NUM_BOUNDS] = {-0.02, -0.005, 0.005, 0.02};
    double bins[NUM_BINS] = {0}, sampled = 0, cumulative = 0;
    for (int64_t i = 0; i < n; i += n / SAMPLE) {
        bins[bits_of(keys[i]) >> BIN_SHIFT] += weights[i];
        sampled += weights[i];
    }
    double scale = sampled > 0 ? total / sampled : 0;
    int bin = NUM_BINS - 1;
    for (int j = 0; j < NUM_BOUNDS; j++) {
        double until = mass + doubts[j] * total;
        while (bin > 0 && cumulative + bins[bin] * scale < until) cumulative += bins[bin--] * scale;
        double inside = bins[bin] * scale, share = inside > 0 ? (until - cumulative) / inside : 0;
        share = share > 0 ? (share < 1 ? share : 1) : 0;
        bounds[j] = (uint32_t)((bin + 1 - share) * (1u << BIN_SHIFT));
    }
}

/* Bounds around where the end lies if weights between the two were evenly spread. */
static void interpolate(uint32_t high, uint32_t low, double share, uint32_t *bounds) {
    static const double doubts[NUM_BOUNDS] = {-1.0 / 8, -1.0 / 64, 1.0 / 64, 1.0 / 8};
    for (int j = 0; j < NUM_BOUNDS; j++) {
        double place = share + doubts[j];
        place = place > 0 ? (place < 1 ? place : 1) : 0;
        bounds[j] = high - (uint32_t)(place * (high - low));
    }
}

static int best_first(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Of those below `most` keep what is needed beside `from_most` to reach the mass. */
INLINE int keep_between(
    int64_t n, const float *keys, float *weights, float most, float least, double from_most,
    double mass) {
    int64_t found = 0, room = 0;
    candidate *between = NULL;
    for (int64_t start = 0; start < n; start += LANES) {
        const float *of_group = keys + start;
        float *group = weights + start;
        int any[LANES], some = 0;
        EACH_LANE { /* the key first: it may be the weight */
            float key = of_group[k];
            any[k] = (key >= least) & (key < most);
            group[k] = key >= least ? group[k] : 0.0f;
        }
        for (int k = 0; k < LANES; k++) some |= any[k];
        for (int k = 0; some && k < LANES; k++) {
            if (!any[k]) continue;
            if (found == room) {
                room = 2 * room + MAX_BETWEEN;
                candidate *larger = realloc(between, (size_t)room * sizeof *between);
                if (!larger) {
                    free(between);
                    return -1;
                }
                between = larger;
            }
            between[found++] = (candidate){of_group[k], (int32_t)(start + k)};
        }
    }
    /* Between neighbours among floats all are equal, and in the order of their ids already. */
    if (found && bits_of(most) - bits_of(least) > 1)
        qsort(between, (size_t)found, sizeof *between, best_first);
    for (int64_t i = 0; i < found; i++) {
        float *weight = weights + between[i].id;
        int enough = from_most >= mass;
        from_most += *weight;
        if (enough) *weight = 0.0f;
    }
    free(between);
    return 0;
}

/* Whether little enough lies between two bounds to be sorted. */
INLINE int few_between(
    int64_t n, const float *keys, const float *weights, uint32_t high, uint32_t low, double mass) {
    if (keys == weights) return mass < MAX_BETWEEN * (double)float_of(low);
    return count_between(n, keys, float_of(high), float_of(low)) <= MAX_BETWEEN;
}

/* The end is searched for among the bits of floats: what is from `high` on does not reach the
 * mass, what is from `low` on does. The few between are sorted. */
FOR_EACH_PROCESSOR int bp_keep_best(
    int64_t n, const float *keys, float *weights, double mass, double total) {
    uint32_t high = ABOVE_ALL, low = 1, bounds[NUM_BOUNDS], width = 0;
    double from_high = 0, from_low = total, sums[NUM_BOUNDS];
    n = whole_lanes(n);
    if (mass <= 0) mass = 1e-300; /* one stays */
    for (int turn = 0; high - low > 1; turn++) {
        if (turn && few_between(n, keys, weights, high, low, from_low - from_high)) break;
        if (turn == 0 && n >= 4 * SAMPLE) {
            guess(n, keys, weights, mass, total, bounds);
        } else if (turn % 4 < 3 && (turn < 2 || high - low < width / 4)) {
            interpolate(high, low, (mass - from_high) / (from_low - from_high), bounds);
        } else { /* straight lines mislead where few weigh much */
            for (int j = 0; j < NUM_BOUNDS; j++)
                bounds[j] = high - (uint32_t)((uint64_t)(high - low) * (j + 1) / (NUM_BOUNDS + 1));
        }
        width = high - low;
        float values[NUM_BOUNDS];
        for (int j = 0; j < NUM_BOUNDS; j++) {
            if (bounds[j] >= high) bounds[j] = high - 1;
            if (bounds[j] <= low) bounds[j] = low + 1;
            values[j] = float_of(bounds[j]);
        }
        sums_from(n, keys, weights, values, sums);
        uint32_t upper = high;
        for (int j = 0; j < NUM_BOUNDS; j++) {
            if (sums[j] < mass && bounds[j] < high) {
                high = bounds[j], from_high = sums[j];
            } else if (sums[j] >= mass && bounds[j] > low && bounds[j] < upper) {
                low = bounds[j], from_low = sums[j];
            }
        }
    }
    return keep_between(n, keys, weights, float_of(high), float_of(low), from_high, mass);
}

FOR_EACH_PROCESSOR double bp_keep_from(int64_t n, float *weights, float least) {
    double sum = 0;
    n = whole_lanes(n);
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        float lanes[LANES] = {0};
        for (int64_t i = start; i < end; i += LANES) {
            EACH_LANE {
                float kept = weights[i + k] >= least ? weights[i + k] : 0.0f;
                weights[i + k] = kept;
                lanes[k] += kept;
            }
        }
        sum += sum_of_lanes(lanes);
    }
    return sum;
}

FOR_EACH_PROCESSOR void bp_typicality(
    int64_t n, const float *weights, double total, float *keys) {
    double sum = 0;
    n = whole_lanes(n);
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        float lanes[LANES] = {0};
        for (int64_t i = start; i < end; i += LANES) {
            EACH_LANE {
                float w = weights[i + k], made = logarithm(w > 0.0f ? w : 1.0f);
                keys[i + k] = made;
                lanes[k] += w * made;
            }
        }
        sum += sum_of_lanes(lanes);
    }
    /* Surprise and entropy, both less the same: the logarithm of the sum. */
    float mean = (float)(sum / total);
    for (int64_t i = 0; i < n; i += LANES) {
        EACH_LANE {
            float key = 1.0f / (1.0f + fabsf(keys[i + k] - mean));
            keys[i + k] = weights[i + k] > 0.0f ? key : 0.0f;
        }
    }
}

INLINE double sum_of(const float *weights, int64_t size) {
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < size; i += LANES) EACH_LANE lanes[k] += weights[i + k];
    return sum_of_lanes(lanes);
}

FOR_EACH_PROCESSOR int64_t bp_index_at(
    int64_t n, const float *weights, double number, double *sums) {
    double total = 0, cumulative = 0;
    n = whole_lanes(n);
    for (int64_t start = 0; start < n; start += BLOCK)
        total += sums[start / BLOCK] = sum_of(weights + start, n - start < BLOCK ? n - start : BLOCK);
    double target = number * total;
    int64_t last = n - 1;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        double beyond = cumulative + sums[start / BLOCK];
        if (beyond > target) {
            for (int64_t i = start; i < end; i++) {
                cumulative += weights[i];
                if (cumulative > target) return i;
            }
            last = end - 1;
            break;
        }
        cumulative = beyond;
    }
    while (last > 0 && !(weights[last] > 0)) last--;
    return last;
}

/* Whether `x` leaves a heap of the best before `y`. */
INLINE int is_worse(candidate x, candidate y) {
    return x.value < y.value || (x.value == y.value && x.id > y.id);
}

/* Put a value at a place of a heap whose root is its worst, or further down. */
static void sift_down(candidate *heap, int64_t size, int64_t place, candidate moved) {
    for (int64_t child; (child = 2 * place + 1) < size; place = child) {
        if (child + 1 < size && is_worse(heap[child + 1], heap[child])) child++;
        if (!is_worse(heap[child], moved)) break;
        heap[place] = heap[child];
    }
    heap[place] = moved;
}

FOR_EACH_PROCESSOR void bp_top(int64_t n, const float *logits, int64_t k, candidate *best) {
    for (int64_t i = 0; i < k; i++) best[i] = (candidate){logits[i], (int32_t)i};
    for (int64_t place = k / 2 - 1; place >= 0; place--) sift_down(best, k, place, best[place]);
    for (int64_t start = k; start < n; start += LANES) {
        int64_t end = n - start < LANES ? n : start + LANES;
        float least = best[0].value;
        int any = 0;
#pragma omp simd reduction(| : any)
        for (int64_t i = start; i < end; i++) any |= logits[i] > least;
        if (!any) continue;
        for (int64_t i = start; i < end; i++)
            if (logits[i] > best[0].value)
                sift_down(best, k, 0, (candidate){logits[i], (int32_t)i});
    }
    qsort(best, (size_t)k, sizeof *best, best_first);
}

FOR_EACH_PROCESSOR void bp_mask(
    int64_t n, const float *logits, const uint8_t *mask, int64_t num_bytes, float *masked) {
    for (int64_t start = 0; start < n; start += 64) {
        int64_t size = n - start < 64 ? n - start : 64, known = num_bytes - start / 8;
        uint64_t word = 0;
        if (known > 0) memcpy(&word, mask + start / 8, known < 8 ? (size_t)known : 8);
#pragma omp simd
        for (int64_t k = 0; k < size; k++)
            masked[start + k] = (word >> k) & 1 ? logits[start + k] : -INFINITY;
    }
}

/* `mix32` of backplane_core.watermark. */
INLINE uint32_t mix32(uint32_t value) {
    value ^= value >> 16;
    value *= 0x85EBCA6Bu;
    value ^= value >> 13;
    value *= 0xC2B2AE35u;
    return value ^ value >> 16;
}

FOR_EACH_PROCESSOR void bp_watermark(
    int64_t n, const float *logits, uint32_t key, uint32_t below, float bonus, float *marked) {
#pragma omp simd
    for (int32_t i = 0; i < (int32_t)n; i++)
        marked[i] = logits[i] + (mix32(mix32((uint32_t)i) ^ key) < below ? bonus : 0.0f);
}
