/* Sluice rerank: scores candidate texts against a query by meaning and by words together.
 *
 * The contract of libsluice_rerank. It guarantees:
 *   - Every function returns a status, never aborts the process and never throws.
 *   - Nothing is kept between calls; any number of threads may call at once.
 *   - Nothing is written to an output, except the counts of sluice_terms and sluice_spans, unless
 *     the status is SLUICE_OK (sluice_spans may hold the spans that fitted).
 * It asks:
 *   - A pointer that is not NULL points at as many elements as the length beside it says. NULL is
 *     allowed where that length is 0. Alignment does not matter.
 *   - Inputs do not change during a call, and outputs overlap neither them nor each other.
 *
 * Words: a word is a letter or digit and every letter, digit or mark after it; all else separates,
 * and so does each byte that is not well-formed UTF-8, which is never an error. Words are
 * lower-cased (simple mapping, no normalisation); English stop words are dropped; words of a to z
 * are stemmed (Snowball English). A word of more than 64 bytes in lower case is cut to the code
 * points that fit and not stemmed.
 *
 * Scores, for candidate i:
 *   lexical_raw[i] = sum over the query's unique terms t of
 *                    idf(t) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average_length)),
 *                    idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))
 *   dense, lexical = similarities and lexical_raw, normalised:
 *     SLUICE_MIN_MAX      (x - min) / (max - min); 0 for all where max - min is at most a
 *                         millionth of the greatest magnitude
 *     SLUICE_THEORETICAL  (x - low) / (max - low), low = -1 for similarities (cosine) and 0 for
 *                         BM25; 0 for all where max <= low, 0 where x < low
 *   fused[i]       = alpha * dense[i] + (1 - alpha) * lexical[i]
 */
#ifndef SLUICE_RERANK_H
#define SLUICE_RERANK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by every change of a layout, of a meaning or of a status. Check it after loading. */
#define SLUICE_RERANK_ABI_VERSION 1u

#define SLUICE_MAX_CANDIDATES 1048576u
#define SLUICE_MAX_TEXT_BYTES 2147483648u /* one text, or all candidates together */
#define SLUICE_MAX_QUERY_BYTES 1048576u   /* in score and highlight */

enum {
    SLUICE_OK = 0,
    SLUICE_NULL_POINTER = 1,
    SLUICE_LENGTH_MISMATCH = 2,            /* offset_count is not similarity_count + 1 */
    SLUICE_OFFSETS_NOT_MONOTONE = 3,
    SLUICE_OFFSET_OUT_OF_RANGE = 4,
    SLUICE_SIMILARITY_NOT_FINITE = 5,
    SLUICE_ALPHA_OUT_OF_RANGE = 6,
    SLUICE_K1_OUT_OF_RANGE = 7,
    SLUICE_B_OUT_OF_RANGE = 8,
    SLUICE_UNKNOWN_NORMALISATION = 9,
    SLUICE_STATISTICS_OUT_OF_RANGE = 10,
    SLUICE_STATISTICS_LENGTH_MISMATCH = 11,
    SLUICE_TOO_MANY_CANDIDATES = 12,
    SLUICE_TEXT_TOO_LONG = 13,
    SLUICE_QUERY_TOO_LONG = 14,
    SLUICE_BUFFER_TOO_SMALL = 15,
    SLUICE_OUT_OF_MEMORY = 16,
    SLUICE_STATUS_COUNT
};

enum {
    SLUICE_MIN_MAX = 0,
    SLUICE_THEORETICAL = 1
};

typedef struct {
    const uint8_t *bytes; /* UTF-8 */
    uint64_t byte_count;
} sluice_text;

/* Candidate i is bytes[offsets[i]] up to bytes[offsets[i + 1]]. */
typedef struct {
    const uint8_t *bytes;
    uint64_t byte_count;
    const uint32_t *offsets;
    uint64_t offset_count; /* candidates + 1 */
    const float *similarities;
    uint64_t similarity_count; /* candidates */
} sluice_candidates;

typedef struct {
    double alpha; /* weight of meaning, 0 to 1 */
    double k1;    /* 0 to 1000, customarily 1.2 */
    double b;     /* 0 to 1, customarily 0.75 */
    uint32_t normalisation;
    uint32_t reserved; /* ignored; write 0 */
} sluice_options;

/* What is known of the collection that the candidates come from. */
typedef struct {
    uint64_t document_count; /* N, at least 1 */
    double average_length;   /* terms a document, stop words not counted; 1e-9 to 1e12 */
    const uint64_t *document_frequencies; /* df, at most N, by the order of sluice_rerank_analyze */
    uint64_t term_count;                  /* unique terms of the query */
} sluice_statistics;

typedef struct {
    float *fused;
    float *dense;
    float *lexical_raw;
    float *lexical;
    uint64_t capacity; /* of each array; at least the candidates */
} sluice_scores;

/* Term i is bytes[offsets[i]] up to bytes[offsets[i + 1]]. */
typedef struct {
    uint8_t *bytes;
    uint64_t byte_capacity;
    uint32_t *offsets;
    uint64_t offset_capacity; /* at least term_count + 1 */
    uint64_t byte_count;      /* out: needed, also when the buffer is too small */
    uint64_t term_count;      /* out: likewise */
} sluice_terms;

/* Bytes of a text, the end excluded. */
typedef struct {
    uint32_t start;
    uint32_t end;
} sluice_span;

typedef struct {
    sluice_span *spans;
    uint64_t capacity;
    uint64_t count; /* out: needed, also when the buffer is too small */
} sluice_spans;

uint32_t sluice_rerank_abi_version(void);

/* A static English sentence for a status; one for unknown numbers too. */
const char *sluice_rerank_status_message(uint32_t status);

/* The unique terms of a text, in order of first appearance. */
uint32_t sluice_rerank_analyze(const sluice_text *text, sluice_terms *terms);

/* Scores every candidate. `statistics` may be NULL: then they are counted over the candidates. */
uint32_t sluice_rerank_score(const sluice_text *query,
                             const sluice_candidates *candidates,
                             const sluice_options *options,
                             const sluice_statistics *statistics,
                             const sluice_scores *scores);

/* Where words of the text share a term with the query, ascending. */
uint32_t sluice_rerank_highlight(const sluice_text *query,
                                 const sluice_text *text,
                                 sluice_spans *spans);

#ifdef __cplusplus
}
#endif

#endif
