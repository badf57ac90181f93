/* A step's rows of logits turned into tokens and logprobs, side by side, by the rules of
 * docs/sampling.md. `rows.py` calls it once a step, without the interpreter's lock. */

#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { DONE = 0, NO_TOKEN = 1, NO_MEMORY = 2 };
/* A row whose weight lies on few has all it needs among its highest. */
enum { NUM_HEAVY = 64, FLAT = 256 };

/* What is asked of a row, and what comes of it; `rows.py` has the same fields.
 *
 * Lists are a pointer and a length. Ids in them lie within the vocabulary. */
typedef struct {
    float *logits; /* changed meanwhile, not afterwards */

    /* Watermark: what is added to the logit of each token that is green under a key. */
    int32_t watermarked;
    uint32_t green_key, green_below;
    float green_bonus;

    int64_t num_biases;
    const int64_t *bias_ids;
    const double *biases;

    double repetition_penalty, frequency_penalty, presence_penalty;
    int64_t num_seen; /* distinct tokens of the sequence, and how often its output has them */
    const int64_t *seen_ids;
    const double *seen_counts;

    int64_t num_banned;
    const int64_t *banned_ids;
    int64_t num_mask_bytes; /* a grammar's: bit `id % 8` of byte `id / 8`; none is no grammar */
    const uint8_t *mask;

    int32_t scored; /* no token is drawn: `token` is given, its logprob asked */
    int32_t greedy;
    double temperature, top_p, min_p, typical_p;
    int64_t top_k; /* 0 is off */
    double number; /* that the draw goes by, from 0 to below 1 */

    int64_t num_top; /* of the highest logprobs; -1 is no logprobs at all */

    int64_t token;
    int64_t status;
    double logprob;
    int32_t *top_ids;
    double *top_logprobs;
} row_task;

/* A thread's own. */
typedef struct {
    float *steered, *weights, *keys;
    int32_t *ids;
    candidate *best;
    float *saved;
    double *sums;
} workspace;

/* What may come next: logits and their ids; no ids are those of the whole vocabulary. */
typedef struct {
    int64_t n;
    const float *logits;
    const int32_t *ids;
} choices;

/* ── before the draw ─────────────────────────────────────────────────────────────────────── */

/* Bias, penalties and bans, in this order; what was there before, in the order of changing. */
static void change(const row_task *task, float *logits, float *saved) {
    for (int64_t i = 0; i < task->num_biases; i++) {
        float *logit = logits + task->bias_ids[i];
        *saved++ = *logit;
        *logit = (float)(*logit + task->biases[i]);
    }
    for (int64_t i = 0; i < task->num_seen; i++) {
        float *logit = logits + task->seen_ids[i];
        double value = *saved++ = *logit, count = task->seen_counts[i];
        value = value > 0 ? value / task->repetition_penalty : value * task->repetition_penalty;
        if (count > 0) value -= count * task->frequency_penalty + task->presence_penalty;
        *logit = (float)value;
    }
    for (int64_t i = 0; i < task->num_banned; i++) {
        float *logit = logits + task->banned_ids[i];
        *saved++ = *logit;
        *logit = -INFINITY;
    }
}

/* Undo `change`, the last one first. */
static void put_back(const row_task *task, float *logits, const float *saved) {
    saved += task->num_biases + task->num_seen + task->num_banned;
    for (int64_t i = task->num_banned; i-- > 0;) logits[task->banned_ids[i]] = *--saved;
    for (int64_t i = task->num_seen; i-- > 0;) logits[task->seen_ids[i]] = *--saved;
    for (int64_t i = task->num_biases; i-- > 0;) logits[task->bias_ids[i]] = *--saved;
}

static uint64_t mask_word(const row_task *task, int64_t start, int64_t n) {
    int64_t known = task->num_mask_bytes - start / 8;
    uint64_t word = 0;
    if (known > 0) memcpy(&word, task->mask + start / 8, known < 8 ? (size_t)known : 8);
    return n - start < 64 ? word & ((1ull << (n - start)) - 1) : word;
}

/* What a mask leaves: gathered where that is little, else a copy with -inf in between. */
static choices allowed(const row_task *task, int64_t n, const float *logits, const workspace *own) {
    int64_t count = 0;
    for (int64_t start = 0; start < n; start += 64)
        count += __builtin_popcountll(mask_word(task, start, n));
    if (count > n / 8) {
        bp_mask(n, logits, task->mask, task->num_mask_bytes, own->steered);
        return (choices){n, own->steered, NULL};
    }
    int64_t found = 0;
    for (int64_t start = 0; start < n; start += 64) {
        for (uint64_t word = mask_word(task, start, n); word; word &= word - 1) {
            int64_t id = start + __builtin_ctzll(word);
            own->ids[found] = (int32_t)id;
            own->steered[found++] = logits[id];
        }
    }
    return (choices){found, own->steered, own->ids};
}

/* ── the draw ────────────────────────────────────────────────────────────────────────────── */

static int by_id(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Of `n` candidates, best first, keep what `top_p` and `min_p` do, in the order of their ids, and
 * write their weights. `top_p` is a share of `total`, or of their own sum where that is 0. */
static int64_t cut_best(
    const row_task *task, candidate *best, int64_t n, double total, const workspace *own) {
    double highest = best[0].value, reached = 0, mass = INFINITY;
    if (task->top_p < 1) {
        if (!(total > 0))
            for (int64_t i = 0; i < n; i++)
                total += exp((best[i].value - highest) / task->temperature);
        mass = task->top_p * total;
    }
    int64_t kept = 0;
    for (; kept < n && (kept == 0 || reached < mass); kept++) {
        double weight = exp((best[kept].value - highest) / task->temperature);
        if (weight < task->min_p) break;
        reached += weight;
        best[kept].value = (float)weight;
    }
    qsort(best, (size_t)kept, sizeof *best, by_id);
    for (int64_t i = 0; i < kept; i++) own->weights[i] = best[i].value;
    for (int64_t i = kept; i % LANES; i++) own->weights[i] = 0.0f;
    return kept;
}

/* The place of a token among the choices. */
static int draw(const row_task *task, choices from, const workspace *own, int64_t *place) {
    int64_t n = from.n, top = n ? bp_argmax(n, from.logits) : -1;
    if (top < 0 || !isfinite(from.logits[top])) return NO_TOKEN;
    if (task->greedy) {
        *place = top;
        return DONE;
    }
    float *weights = own->weights;
    const candidate *few = NULL;
    if (task->top_k && task->top_k < n) {
        bp_top(n, from.logits, task->top_k, own->best);
        n = cut_best(task, own->best, task->top_k, 0, own);
        few = own->best;
    } else {
        double total =
            bp_weigh(n, from.logits, from.logits[top], (float)(1 / task->temperature), weights);
        if (task->top_p < 1) {
            double mass = task->top_p * total, heavy = 0;
            if (total <= FLAT && n > NUM_HEAVY) {
                bp_top(n, from.logits, NUM_HEAVY, own->best);
                for (int i = 0; i < NUM_HEAVY; i++) heavy += weights[own->best[i].id];
            }
            if (heavy >= mass && heavy > 0) {
                n = cut_best(task, own->best, NUM_HEAVY, total, own);
                few = own->best;
            } else if (bp_keep_best(n, weights, weights, mass, total)) {
                return NO_MEMORY;
            }
        }
        if (task->min_p > 0 && !few) bp_keep_from(n, weights, (float)task->min_p);
    }
    if (task->typical_p < 1) {
        double total = bp_keep_from(n, weights, 0.0f);
        bp_typicality(n, weights, total, own->keys);
        if (bp_keep_best(n, own->keys, weights, task->typical_p * total, total)) return NO_MEMORY;
    }
    int64_t drawn = bp_index_at(n, weights, task->number, own->sums);
    *place = few ? few[drawn].id : drawn;
    return DONE;
}

/* ── rows ────────────────────────────────────────────────────────────────────────────────── */

static void sample_row(row_task *task, int64_t n, const workspace *own) {
    float *logits = task->logits;
    if (task->watermarked) {
        logits = own->steered;
        bp_watermark(
            n, task->logits, task->green_key, task->green_below, task->green_bonus, logits);
    }
    change(task, logits, own->saved);
    choices from = {n, logits, NULL};
    if (task->num_mask_bytes) from = allowed(task, n, logits, own);
    int64_t place = 0;
    task->status = draw(task, from, own, &place);
    if (task->status == DONE) task->token = from.ids ? from.ids[place] : place;
    put_back(task, logits, own->saved);
}

static void add_logprobs(row_task *task, int64_t n, const workspace *own) {
    double normalizer = bp_log_sum(n, task->logits);
    task->logprob = task->logits[task->token] - normalizer;
    if (task->num_top == 0) return;
    if (normalizer == normalizer) {
        bp_top(n, task->logits, task->num_top, own->best);
    } else { /* of what are no numbers none is the highest */
        for (int64_t i = 0; i < task->num_top; i++) own->best[i] = (candidate){NAN, (int32_t)i};
    }
    for (int64_t i = 0; i < task->num_top; i++) {
        task->top_ids[i] = own->best[i].id;
        task->top_logprobs[i] = own->best[i].value - normalizer;
    }
}

static void do_row(row_task *task, int64_t n, const workspace *own) {
    task->status = DONE;
    if (!task->scored) sample_row(task, n, own);
    if (task->status == DONE && task->num_top >= 0) add_logprobs(task, n, own);
}

static int64_t aligned(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static char *take(char **room, int64_t bytes) {
    char *taken = *room;
    *room += aligned(bytes);
    return taken;
}

/* A thread's share of the room. Values that are changed number at most three times the
 * vocabulary: biases, tokens seen and bans, each of them distinct. */
static int64_t lay_out(workspace *own, char *room, int64_t n) {
    char *start = room;
    int64_t width = n + LANES;
    own->steered = (float *)take(&room, width * 4);
    own->weights = (float *)take(&room, width * 4);
    own->keys = (float *)take(&room, width * 4);
    own->ids = (int32_t *)take(&room, width * 4);
    own->best = (candidate *)take(&room, width * (int64_t)sizeof(candidate));
    own->saved = (float *)take(&room, 3 * width * 4);
    own->sums = (double *)take(&room, width * 8);
    return room - start;
}

/* Whether caller and library mean the same by a task. */
int64_t bp_task_size(void) {
    return sizeof(row_task);
}

/* Bytes of room that one thread needs for a vocabulary of `n`. */
int64_t bp_room(int64_t n) {
    workspace own;
    return lay_out(&own, NULL, n);
}

/* Do all tasks, on up to `num_threads` threads: those that also compute the model, which still
 * spin where this follows a decode. `room` is `bp_room` for each of them, at 64 bytes. */
void bp_sample(int64_t n, int64_t num_tasks, row_task **tasks, int32_t num_threads, char *room) {
    int64_t share = bp_room(n);
    if (num_threads > num_tasks) num_threads = (int32_t)num_tasks;
#ifdef _OPENMP
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
#endif
    {
        workspace own;
#ifdef _OPENMP
        lay_out(&own, room + omp_get_thread_num() * share, n);
#pragma omp for schedule(dynamic, 1)
#else
        lay_out(&own, room, n);
#endif
        for (int64_t i = 0; i < num_tasks; i++) do_row(tasks[i], n, &own);
    }
}
