/* The layout that include/sluice_rerank.h gives its structs, for the test that holds abi.zig
 * against it. It is part of the tests only, never of the library. */
#include <stddef.h>

#include "sluice_rerank.h"

#define AT(type, field) offsetof(type, field)

const size_t sluice_header_layout[] = {
    sizeof(sluice_text), AT(sluice_text, bytes), AT(sluice_text, byte_count),

    sizeof(sluice_candidates), AT(sluice_candidates, bytes), AT(sluice_candidates, byte_count),
    AT(sluice_candidates, offsets), AT(sluice_candidates, offset_count),
    AT(sluice_candidates, similarities), AT(sluice_candidates, similarity_count),

    sizeof(sluice_options), AT(sluice_options, alpha), AT(sluice_options, k1),
    AT(sluice_options, b), AT(sluice_options, normalisation), AT(sluice_options, reserved),

    sizeof(sluice_statistics), AT(sluice_statistics, document_count),
    AT(sluice_statistics, average_length), AT(sluice_statistics, document_frequencies),
    AT(sluice_statistics, term_count),

    sizeof(sluice_scores), AT(sluice_scores, fused), AT(sluice_scores, dense),
    AT(sluice_scores, lexical_raw), AT(sluice_scores, lexical), AT(sluice_scores, capacity),

    sizeof(sluice_terms), AT(sluice_terms, bytes), AT(sluice_terms, byte_capacity),
    AT(sluice_terms, offsets), AT(sluice_terms, offset_capacity), AT(sluice_terms, byte_count),
    AT(sluice_terms, term_count),

    sizeof(sluice_span), AT(sluice_span, start), AT(sluice_span, end),

    sizeof(sluice_spans), AT(sluice_spans, spans), AT(sluice_spans, capacity),
    AT(sluice_spans, count),
};
const size_t sluice_header_layout_count = sizeof(sluice_header_layout) / sizeof(size_t);

const uint64_t sluice_header_constants[] = {
    SLUICE_RERANK_ABI_VERSION, SLUICE_STATUS_COUNT, SLUICE_OUT_OF_MEMORY,
};
