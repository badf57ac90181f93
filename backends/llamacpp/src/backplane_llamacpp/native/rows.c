/* One row of logits, as wide as the vocabulary, in a few passes over memory: what numpy would need
 * three times as many for, with the interpreter's lock let go throughout, so that rows are sampled
 * side by side. `rows.py` calls it; `wide_row.py` does the same in numpy where it is not compiled.
 *
 * Weights are numbers from 0 to 1. Sums are float within a block, double over blocks.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__ELF__)
/* Compiled once for each generation of processors; the loader takes the best. */
#define FOR_EACH_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 64, BLOCK = 64 * LANES, SAMPLE = 4096, BIN_SHIFT = 18, MAX_BETWEEN = 256, NUM_BOUNDS = 4 };
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

/* The highest; not a number where one of them is not. */
FOR_EACH_PROCESSOR float bp_highest(int64_t n, const float *logits) {
    float lanes[LANES], highest = -INFINITY;
    int bad[LANES] = {0};
    int64_t i = 0;
    for (int k = 0; k < LANES; k++) lanes[k] = -INFINITY;
    for (; i + LANES <= n; i += LANES) {
        EACH_LANE {
            float x = logits[i + k];
            lanes[k] = x > lanes[k] ? x : lanes[k];
            bad[k] |= x != x;
        }
    }
    for (int k = 0; k < LANES; k++) {
        if (bad[k]) return NAN;
        if (lanes[k] > highest) highest = lanes[k];
    }
    for (; i < n; i++) {
        if (logits[i] != logits[i]) return NAN;
        if (logits[i] > highest) highest = logits[i];
    }
    return highest;
}

/* exp((x - highest) * factor) of each logit, into `weights`, which may be `logits`; their sum. */
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
        for (; i < end; i++)
            lanes[0] += weights[i] = exponential((logits[i] - highest) * factor);
        sum += sum_of_lanes(lanes);
    }
    return sum;
}

/* The sum of exp(x - highest) of each logit. */
FOR_EACH_PROCESSOR double bp_exp_sum(int64_t n, const float *logits, float highest) {
    double sum = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK, i = start;
        float lanes[LANES] = {0};
        for (; i + LANES <= end; i += LANES)
            EACH_LANE lanes[k] += exponential(logits[i + k] - highest);
        for (; i < end; i++) lanes[0] += exponential(logits[i] - highest);
        sum += sum_of_lanes(lanes);
    }
    return sum;
}

/* The sums of what is at least as high as each of some bounds. `n` is whole lanes. */
INLINE void sums_from(int64_t n, const float *weights, const float *bounds, double *sums) {
    for (int j = 0; j < NUM_BOUNDS; j++) sums[j] = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        float above[NUM_BOUNDS][LANES] = {{0}};
        for (int64_t i = start; i < end; i += LANES)
            for (int j = 0; j < NUM_BOUNDS; j++)
                EACH_LANE above[j][k] += weights[i + k] >= bounds[j] ? weights[i + k] : 0.0f;
        for (int j = 0; j < NUM_BOUNDS; j++) sums[j] += sum_of_lanes(above[j]);
    }
}

/* Bounds around where the end should lie, from a histogram of a sample; descending bits. */
static void guess(int64_t n, const float *weights, double mass, double total, uint32_t *bounds) {
    static const double doubts[NUM_BOUNDS] = {-0.02, -0.005, 0.005, 0.02};
    double bins[NUM_BINS] = {0}, sampled = 0, cumulative = 0;
    for (int64_t i = 0; i < n; i += n / SAMPLE) {
        bins[bits_of(weights[i]) >> BIN_SHIFT] += weights[i];
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

typedef struct {
    float weight;
    int32_t id;
} candidate;

static int by_weight(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Of those below `most` keep what is needed beside `from_most` to reach the mass. */
INLINE int keep_between(
    int64_t n, float *weights, float most, float least, double from_most, double mass) {
    int64_t found = 0, room = 0;
    candidate *between = NULL;
    for (int64_t start = 0; start < n; start += LANES) {
        float *group = weights + start;
        int any[LANES], some = 0;
        EACH_LANE {
            float w = group[k] >= least ? group[k] : 0.0f;
            group[k] = w;
            any[k] = (w > 0.0f) & (w < most);
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
            between[found++] = (candidate){group[k], (int32_t)(start + k)};
        }
    }
    /* Between neighbours among floats all are equal, and in the order of their ids already. */
    if (found && bits_of(most) - bits_of(least) > 1)
        qsort(between, (size_t)found, sizeof *between, by_weight);
    for (int64_t i = 0; i < found; i++) {
        if (from_most >= mass) weights[between[i].id] = 0.0f;
        from_most += between[i].weight;
    }
    free(between);
    return 0;
}

/* Keep the fewest and highest weights that reach `mass` of a sum of `total`, the lowest ids among
 * equals; the others become 0. `n` is whole lanes.
 *
 * The end is searched for among the bits of floats: what is from `high` on does not reach the
 * mass, what is from `low` on does. The few between are sorted. -1 is no memory for these.
 */
FOR_EACH_PROCESSOR int bp_keep_highest(int64_t n, float *weights, double mass, double total) {
    uint32_t high = ABOVE_ALL, low = 1, bounds[NUM_BOUNDS], width = 0;
    double from_high = 0, from_low = total, sums[NUM_BOUNDS];
    if (mass <= 0) mass = 1e-300; /* one stays */
    for (int turn = 0; high - low > 1; turn++) {
        if (turn && from_low - from_high < MAX_BETWEEN * (double)float_of(low)) break;
        if (turn == 0 && n >= 4 * SAMPLE) {
            guess(n, weights, mass, total, bounds);
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
        sums_from(n, weights, values, sums);
        uint32_t upper = high;
        for (int j = 0; j < NUM_BOUNDS; j++) {
            if (sums[j] < mass && bounds[j] < high) {
                high = bounds[j], from_high = sums[j];
            } else if (sums[j] >= mass && bounds[j] > low && bounds[j] < upper) {
                low = bounds[j], from_low = sums[j];
            }
        }
    }
    return keep_between(n, weights, float_of(high), float_of(low), from_high, mass);
}

INLINE double sum_of(const float *weights, int64_t size) {
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < size; i += LANES) EACH_LANE lanes[k] += weights[i + k];
    return sum_of_lanes(lanes);
}

/* The first id at which the cumulative share of the weights exceeds `number`; should rounding have
 * left none, the last that weighs anything. `n` is whole lanes. */
FOR_EACH_PROCESSOR int64_t bp_index_at(int64_t n, const float *weights, double number) {
    double total = 0, cumulative = 0;
    for (int64_t start = 0; start < n; start += BLOCK)
        total += sum_of(weights + start, n - start < BLOCK ? n - start : BLOCK);
    double target = number * total;
    int64_t last = n - 1;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        double beyond = cumulative + sum_of(weights + start, end - start);
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

/* The k highest, best first, the lowest ids among equals. There are at least k; none is NaN. */
FOR_EACH_PROCESSOR void bp_top(int64_t n, const float *logits, int64_t k, int32_t *ids, float *top) {
    int64_t found = 0;
    for (int64_t start = 0; start < n; start += LANES) {
        int64_t end = n - start < LANES ? n : start + LANES;
        if (found == k) {
            float least = top[k - 1];
            int any = 0;
#pragma omp simd reduction(| : any)
            for (int64_t i = start; i < end; i++) any |= logits[i] > least;
            if (!any) continue;
        }
        for (int64_t i = start; i < end; i++) {
            float x = logits[i];
            if (found == k && !(x > top[k - 1])) continue;
            int64_t place = found < k ? found++ : k - 1;
            for (; place > 0 && x > top[place - 1]; place--) {
                top[place] = top[place - 1];
                ids[place] = ids[place - 1];
            }
            top[place] = x;
            ids[place] = (int32_t)i;
        }
    }
}
