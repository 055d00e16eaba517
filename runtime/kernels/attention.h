/* Causal attention of a call's queries over cached keys and values, each of which is read once.
 *
 * Softmax goes along with the reading (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), so
 * that a long context can be divided among threads and put together afterwards (Dao et al., "Flash-Decoding", 2023).
 */
#ifndef SOTTOVOCE_ATTENTION_H
#define SOTTOVOCE_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t query_heads, kv_heads;
    int64_t head_size; /* channels: 16, 32, 48 … 128 */
    int64_t queries;   /* positions of this call, the last ones of `filled` */
    int64_t filled;    /* positions of keys and values, with this call's */
    int64_t capacity;  /* positions that the buffers have room for */
    float scale;
    const float *query;         /* (queries, query_heads, head_size) */
    const float *keys, *values; /* (kv_heads, capacity, head_size) */
    const float *sinks;         /* (query_heads): a score each that has no value; or NULL */
    float *result;              /* (queries, query_heads, head_size) */
} attention;

/* How the work is divided: some rows (a query and a head) of one KV head, and a stretch of its positions. */
typedef struct {
    int64_t rows;              /* of a KV head */
    int64_t row_tiles, splits; /* of a KV head: tasks are kv_heads * row_tiles * splits */
    int64_t split;             /* positions of a task */
    size_t scratch_floats;
} attention_plan;

enum {
    MOST_CHANNELS = 128,
    MOST_ROWS = 8,  /* of a task */
    STRETCH = 128,  /* positions between two looks at the largest score: their keys or values fit into L1 */
};

/* What has been found for one row; `sum` and `mixed` are relative to exp(largest). */
typedef struct {
    float largest, sum;
    float mixed[MOST_CHANNELS];
} row_state;

/* A task's rows and how far each of them sees. */
typedef struct {
    int count;
    const float *query[MOST_ROWS];
    int64_t visible[MOST_ROWS];
    row_state *state; /* of the first; the others follow */
    float weights[MOST_ROWS][STRETCH];
} attention_rows;

/* Whether KV heads divide the query heads, and these are no more than any model has. */
int heads_fit(int64_t query_heads, int64_t kv_heads);
int attention_takes(int64_t head_size);
attention_plan plan_attention(const attention *of);
int64_t attention_tasks(const attention *of, const attention_plan *plan);

/* Where the keys begin that a task reads. */
const float *first_key(const attention *of, const attention_plan *plan, int64_t task);

/* One task; tasks are independent of one another. `scratch` is all tasks' together. */
void attend(const attention *of, const attention_plan *plan, int64_t task, float *scratch);

/* After all tasks, where positions were divided. */
void join_splits(const attention *of, const attention_plan *plan, float *scratch);

#endif
