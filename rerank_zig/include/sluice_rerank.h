/* Sluice rerank: scores candidate texts against a query by meaning and by words together.
 *
 * The contract of libsluice_rerank. It guarantees:
 *   - Every function returns a status, never aborts the process and never throws.
 *   - Nothing is kept between calls but what open stores hold, and up to 8 MiB of scratch memory;
 *     any number of threads may call at once.
 *   - Nothing is written to an output, unless the status is SLUICE_OK, except to those that
 *     say what they need when they are too small: their counts, and what fitted.
 * It asks:
 *   - A pointer that is not NULL points at as many elements as the length beside it says. NULL is
 *     allowed where that length is 0. Alignment does not matter.
 *   - Inputs do not change during a call, and outputs overlap neither them nor each other.
 *
 * Words (analysis version 1): a word is a letter or digit and every letter, digit or mark after it;
 * all else separates, and so does each byte that is not well-formed UTF-8, which is never an error.
 * Its position is its ordinal among the words of its text; the length of a text counts its words.
 * Words are lower-cased (simple mapping, no normalisation); English stop words have no terms; words
 * of a to z are stemmed (Snowball English). A word of more than 64 bytes in lower case is cut to the
 * code points that fit and not stemmed. Further terms stand at a word's position:
 *   parts      an ASCII word is cut, within its first 64 bytes, before a capital after a small
 *              letter, before the last of several capitals where a small letter follows it, and
 *              between letters and digits. Of more than one part, each of at least two bytes that is
 *              no stop word is a term, stemmed if it is letters; the first 16 such.
 *   compounds  2 to 16 words with exactly one of - _ . / : @ # \ between each two, where a word
 *              holds a digit or a joint is neither - nor /: the whole run in lower case is a term
 *              at its first word, unless it is longer than 256 bytes.
 * Terms are compared by hash: the low 32 bits of Wyhash (final version 4) of the term's bytes with
 * seed 0, of a compound with seed 1; 0 is replaced by 1.
 *
 * Scores, for candidate i, by BM25F and what words near each other add:
 *   lexical_raw[i] = sum over the query's unique terms t of idf(t) * sat(tf(t)) + proximity[i]
 *     tf(t)  = count in the text / norm(text) + title weight * count in the title / norm(title)
 *     norm   = 1 - b + b * words of the field / average words of such fields
 *     sat(x) = x * (k1 + 1) / (x + k1)
 *     idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))
 *   title[i]       = what the counts in the title added to that
 *   proximity[i]   = proximity weight *
 *     (sum over neighbours (t, u) of the query of min(idf(t), idf(u)) * sat(count / norm(text))
 *      + sum over its words t of min(1, idf(t)) * sat(near(t) / norm(text)))
 *     neighbours: two different words next to each other among the query's words that are no stop
 *       words, at most 3 positions apart; of the first 64. They count where the text has them in
 *       that order and distance.
 *     near(t): idf(u) / distance^2, summed over the pairs of matches of two different words t and u
 *       of the query that follow each other in the text, with no third between them.
 *   dense, lexical = similarities and lexical_raw, normalised:
 *     SLUICE_MIN_MAX      (x - min) / (max - min); 0 for all where max - min is at most a
 *                         millionth of the greatest magnitude
 *     SLUICE_THEORETICAL  (x - low) / (max - low), low = -1 for similarities (cosine) and 0 for
 *                         lexical_raw; 0 for all where max <= low, 0 where x < low
 *   fused[i]       = alpha * dense[i] + (1 - alpha) * lexical[i]
 *     adaptive alpha = D / (D + W): D is what similarities were divided by above, W what
 *       lexical_raw was divided by, times 1.1 / ln(max(N, 10))^2; 0.5 if both are 0
 */
#ifndef SLUICE_RERANK_H
#define SLUICE_RERANK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by every change of a layout, of a meaning or of a status. Check it after loading. */
#define SLUICE_RERANK_ABI_VERSION 3u

#define SLUICE_MAX_CANDIDATES 1048576u
#define SLUICE_MAX_TEXT_BYTES 2147483648u /* one text, or all of one block together */
#define SLUICE_MAX_GROUPED_TEXTS 4096u
#define SLUICE_MAX_GROUPED_BYTES 67108864u
#define SLUICE_MAX_QUERY_BYTES 1048576u   /* in score and highlight */
#define SLUICE_MAX_QUERY_TERMS 1024u      /* likewise: different ones */

enum {
    SLUICE_OK = 0,
    SLUICE_NULL_POINTER = 1,
    SLUICE_LENGTH_MISMATCH = 2,            /* one offset more than texts or similarities */
    SLUICE_OFFSETS_NOT_MONOTONE = 3,
    SLUICE_OFFSET_OUT_OF_RANGE = 4,
    SLUICE_SIMILARITY_NOT_FINITE = 5,
    SLUICE_ALPHA_OUT_OF_RANGE = 6,
    SLUICE_K1_OUT_OF_RANGE = 7,
    SLUICE_B_OUT_OF_RANGE = 8,
    SLUICE_UNKNOWN_NORMALISATION = 9,
    SLUICE_STATISTICS_OUT_OF_RANGE = 10,
    SLUICE_TITLES_LENGTH_MISMATCH = 11,
    SLUICE_TOO_MANY_CANDIDATES = 12,
    SLUICE_TEXT_TOO_LONG = 13,
    SLUICE_QUERY_TOO_LONG = 14,
    SLUICE_BUFFER_TOO_SMALL = 15,
    SLUICE_OUT_OF_MEMORY = 16,
    SLUICE_RESEMBLANCE_OUT_OF_RANGE = 17,
    SLUICE_TOO_MANY_TEXTS_TO_GROUP = 18,
    SLUICE_TITLE_OUT_OF_RANGE = 19,
    SLUICE_PROXIMITY_OUT_OF_RANGE = 20,
    SLUICE_UNKNOWN_STORE = 21,
    SLUICE_TOO_MANY_STORES = 22,
    SLUICE_IDS_MALFORMED = 23,
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

/* Text i is bytes[offsets[i]] up to bytes[offsets[i + 1]]. */
typedef struct {
    const uint8_t *bytes;
    uint64_t byte_count;
    const uint32_t *offsets;
    uint64_t offset_count; /* texts + 1 */
} sluice_texts;

typedef struct {
    sluice_texts texts;
    sluice_texts titles; /* as many; or an offset_count of 0: no candidate has one */
    const float *similarities;
    uint64_t similarity_count; /* candidates */
} sluice_candidates;

typedef struct {
    double alpha; /* weight of meaning, 0 to 1; ignored where adaptive */
    double k1;    /* 0 to 1000, customarily 1.2 */
    double b;     /* 0 to 1, customarily 0.75 */
    double title; /* 0 to 1000 */
    double proximity; /* 0 to 1000 */
    uint32_t normalisation;
    uint32_t adaptive; /* not 0: alpha adapts to the query */
} sluice_options;

/* What is known of the collection that the candidates come from. Hashes that do not ascend may not
 * be found, which does no other harm; frequencies are checked where the query looks them up. */
typedef struct {
    uint64_t document_count; /* N, at least 1 */
    uint64_t text_words;     /* of all texts together */
    uint64_t title_words;    /* of all titles together */
    const uint32_t *hashes;      /* of terms, ascending, each once */
    const uint32_t *frequencies; /* df: in how many documents, title or text; at most N */
    uint64_t count;              /* of both; at most 2^32 - 1 */
} sluice_statistics;

typedef struct {
    float *fused;
    float *dense;
    float *lexical_raw;
    float *lexical;
    float *title;
    float *proximity;
    uint64_t capacity; /* of each array; at least the candidates */
    double alpha;         /* out: as used */
    uint64_t chunk_count; /* out: N as used */
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

/* Characters of a text, the end excluded: its bytes but those that continue a code point, 0x80 to
 * 0xBF. */
typedef struct {
    uint32_t start;
    uint32_t end;
} sluice_span;

typedef struct {
    sluice_span *spans;     /* of text i those from offsets[i] up to offsets[i + 1] */
    uint64_t capacity;
    uint32_t *offsets;      /* text_capacity + 1 */
    uint64_t text_capacity; /* at least the texts */
    uint64_t count;         /* out: needed, also when capacity is too small */
} sluice_spans;

/* Of each text and its title together the hashes of its terms, each once and ascending: those of
 * text i are hashes[offsets[i]] up to hashes[offsets[i + 1]]. */
typedef struct {
    uint32_t *hashes;
    uint64_t hash_capacity;
    uint32_t *offsets;     /* text_capacity + 1 */
    uint32_t *text_words;  /* text_capacity: the length of each text */
    uint32_t *title_words; /* text_capacity: the length of each title */
    uint64_t text_capacity; /* at least the texts */
    uint64_t hash_count;    /* out: needed, also when hash_capacity is too small */
} sluice_word_counts;

/* Ids of chunks, separated by newlines; none is empty. */
typedef struct {
    const uint8_t *bytes;
    uint64_t byte_count;
    uint64_t count; /* at most SLUICE_MAX_CANDIDATES */
} sluice_ids;

typedef struct {
    uint64_t bytes;     /* taken of the store's bound, its own bookkeeping included */
    uint64_t chunks;    /* kept now */
    uint64_t hits;      /* ids that were looked up, by missing or by score, and kept */
    uint64_t misses;    /* likewise, and not kept */
    uint64_t evictions; /* chunks that made room for others */
} sluice_usage;

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
                             sluice_scores *scores);

/* Where each text holds terms of the query, ascending, without overlap: whole words for their own
 * term or a part, whole runs for compounds. */
uint32_t sluice_rerank_highlight(const sluice_text *query,
                                 const sluice_texts *texts,
                                 sluice_spans *spans);

/* Which terms each text has, and how many words. `titles` may be NULL. Where memory runs out, some
 * counts may have been written. */
uint32_t sluice_rerank_count_words(const sluice_texts *titles,
                                   const sluice_texts *texts,
                                   sluice_word_counts *counts);

/* Writes for each text the index of the first text that it nearly repeats, its own if there is none.
 * A text that repeats none leads: later ones are held against leaders only. Two texts nearly repeat
 * each other if
 *   - their words that hold a digit are the same ones in the same order, and
 *   - |A and B| / |A or B| >= resemblance, which is above 0 and at most 1, of the sets A and B of
 *     their shingles: three words that follow each other; one or two words are one shingle, and of
 *     a text without words its bytes are.
 * Words are in lower case here, but whole, unstemmed, stop words included. `leaders` has room for
 * `capacity` indices, at least as many as there are texts. */
uint32_t sluice_rerank_group_duplicates(const sluice_texts *texts,
                                        double resemblance,
                                        int32_t *leaders,
                                        uint64_t capacity);

/* Stores keep of chunks what scoring needs, so that texts are read once. Ids are for ever: what was
 * kept under an id is never replaced. A handle is valid from open to close; any number is safe to
 * pass, and every function answers SLUICE_UNKNOWN_STORE to those that are not. Any number of threads
 * may use one store; a call that is under way while the store is closed ends as if it were not. */

/* Opens a store of at most `max_bytes`, and never more than 128 GiB, which are reserved at once and
 * taken as chunks come. At most 64 are open at a time. */
uint32_t sluice_store_open(uint64_t max_bytes, uint64_t *store);

/* Frees the store, once the calls that use it have ended. */
uint32_t sluice_store_close(uint64_t store);

/* Which chunks are not kept: writes 1 or, where it is kept, 0 for each id. */
uint32_t sluice_store_missing(uint64_t store, const sluice_ids *ids, uint8_t *missing);

/* Reads and keeps chunks, as many texts as ids. Those that are kept are passed over, and one that
 * takes more than the whole store is not kept. Chunks that were not looked up lately make room.
 * `titles` may be NULL. Where memory runs out, some may have been kept. */
uint32_t sluice_store_put(uint64_t store,
                          const sluice_ids *ids,
                          const sluice_texts *titles,
                          const sluice_texts *texts);

/* Scores kept chunks as sluice_rerank_score does their titles and texts; there are as many
 * similarities as ids. Those that are not kept score as if they were empty, and their place in
 * `missing` is 1, else 0. */
uint32_t sluice_store_score(uint64_t store,
                            const sluice_text *query,
                            const sluice_ids *ids,
                            const float *similarities,
                            const sluice_options *options,
                            const sluice_statistics *statistics,
                            sluice_scores *scores,
                            uint8_t *missing);

uint32_t sluice_store_usage(uint64_t store, sluice_usage *usage);

#ifdef __cplusplus
}
#endif

#endif
