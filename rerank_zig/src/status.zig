//! What a call across the ABI answers: one number, stable for ever, and its message in English.

/// Numbers are never reused or renumbered within an ABI version.
pub const Status = enum(u32) {
    ok = 0,
    null_pointer = 1,
    length_mismatch = 2,
    offsets_not_monotone = 3,
    offset_out_of_range = 4,
    similarity_not_finite = 5,
    alpha_out_of_range = 6,
    k1_out_of_range = 7,
    b_out_of_range = 8,
    unknown_normalisation = 9,
    statistics_out_of_range = 10,
    statistics_length_mismatch = 11,
    too_many_candidates = 12,
    text_too_long = 13,
    query_too_long = 14,
    buffer_too_small = 15,
    out_of_memory = 16,

    pub fn message(status: Status) [:0]const u8 {
        return switch (status) {
            .ok => "ok",
            .null_pointer => "a pointer is null though its length is not zero",
            .length_mismatch => "there must be one offset more than there are similarities",
            .offsets_not_monotone => "offsets must not descend",
            .offset_out_of_range => "an offset points past the end of the bytes",
            .similarity_not_finite => "similarities must be finite numbers",
            .alpha_out_of_range => "alpha must be between 0 and 1",
            .k1_out_of_range => "k1 must be between 0 and 1000",
            .b_out_of_range => "b must be between 0 and 1",
            .unknown_normalisation => "normalisation must be 0 (min-max) or 1 (theoretical)",
            .statistics_out_of_range => "statistics need a document count of at least 1, an average " ++
                "length between 1e-9 and 1e12 and no document frequency above the document count",
            .statistics_length_mismatch => "statistics need one document frequency for each unique " ++
                "term of the query, in the order of analyze",
            .too_many_candidates => "more than 1048576 candidates; score them in parts",
            .text_too_long => "more than 2147483648 bytes of text; pass less at once",
            .query_too_long => "a query of more than 1048576 bytes; shorten it",
            .buffer_too_small => "the output buffer is too small; see the count that was written",
            .out_of_memory => "out of memory",
        };
    }
};
