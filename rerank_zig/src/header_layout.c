/* The layout that include/sluice_rerank.h gives its structs, for the test that holds the library
 * against it. It is part of the tests only, never of the library. */
#include <stddef.h>

#include "sluice_rerank.h"

#define AT(type, field) offsetof(type, field)

static const size_t layout[] = {
    sizeof(sluice_text), AT(sluice_text, bytes), AT(sluice_text, byte_count),

    sizeof(sluice_texts), AT(sluice_texts, bytes), AT(sluice_texts, byte_count),
    AT(sluice_texts, offsets), AT(sluice_texts, offset_count),

    sizeof(sluice_candidates), AT(sluice_candidates, texts), AT(sluice_candidates, titles),
    AT(sluice_candidates, similarities), AT(sluice_candidates, similarity_count),

    sizeof(sluice_options), AT(sluice_options, alpha), AT(sluice_options, k1),
    AT(sluice_options, b), AT(sluice_options, title), AT(sluice_options, proximity),
    AT(sluice_options, normalisation), AT(sluice_options, adaptive),

    sizeof(sluice_statistics), AT(sluice_statistics, document_count),
    AT(sluice_statistics, text_words), AT(sluice_statistics, title_words),
    AT(sluice_statistics, hashes), AT(sluice_statistics, frequencies),
    AT(sluice_statistics, count),

    sizeof(sluice_scores), AT(sluice_scores, fused), AT(sluice_scores, dense),
    AT(sluice_scores, lexical_raw), AT(sluice_scores, lexical), AT(sluice_scores, title),
    AT(sluice_scores, proximity), AT(sluice_scores, capacity), AT(sluice_scores, alpha),
    AT(sluice_scores, chunk_count),

    sizeof(sluice_terms), AT(sluice_terms, bytes), AT(sluice_terms, byte_capacity),
    AT(sluice_terms, offsets), AT(sluice_terms, offset_capacity), AT(sluice_terms, byte_count),
    AT(sluice_terms, term_count),

    sizeof(sluice_span), AT(sluice_span, start), AT(sluice_span, end),

    sizeof(sluice_spans), AT(sluice_spans, spans), AT(sluice_spans, capacity),
    AT(sluice_spans, offsets), AT(sluice_spans, text_capacity), AT(sluice_spans, count),

    sizeof(sluice_word_counts), AT(sluice_word_counts, hashes),
    AT(sluice_word_counts, hash_capacity), AT(sluice_word_counts, offsets),
    AT(sluice_word_counts, text_words), AT(sluice_word_counts, title_words),
    AT(sluice_word_counts, text_capacity), AT(sluice_word_counts, hash_count),

    sizeof(sluice_ids), AT(sluice_ids, bytes), AT(sluice_ids, byte_count), AT(sluice_ids, count),

    sizeof(sluice_usage), AT(sluice_usage, bytes), AT(sluice_usage, chunks),
    AT(sluice_usage, hits), AT(sluice_usage, misses), AT(sluice_usage, evictions),
};

const size_t *sluice_header_layout(size_t *count)
{
    *count = sizeof(layout) / sizeof(layout[0]);
    return layout;
}

/* The last is the greatest status. */
const uint64_t sluice_header_constants[] = {
    SLUICE_RERANK_ABI_VERSION, SLUICE_STATUS_COUNT, SLUICE_STATUS_COUNT - 1,
};
