//! What a call across the ABI answers: one number, stable for ever, and its message in English.

const std = @import("std");

/// Numbers are never reused or renumbered within an ABI version; new ones are appended.
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
    titles_length_mismatch = 11,
    too_many_candidates = 12,
    text_too_long = 13,
    query_too_long = 14,
    buffer_too_small = 15,
    out_of_memory = 16,
    resemblance_out_of_range = 17,
    too_many_texts_to_group = 18,
    title_out_of_range = 19,
    proximity_out_of_range = 20,
    unknown_store = 21,
    too_many_stores = 22,
    ids_malformed = 23,

    pub fn message(status: Status) [:0]const u8 {
        return switch (status) {
            .ok => "ok",
            .null_pointer => "a pointer is null though its length is not zero",
            .length_mismatch => "there must be one offset more than there are texts or similarities",
            .offsets_not_monotone => "offsets must not descend",
            .offset_out_of_range => "an offset points past the end of the bytes",
            .similarity_not_finite => "similarities must be finite numbers",
            .alpha_out_of_range => "alpha must be between 0 and 1",
            .k1_out_of_range => "k1 must be between 0 and 1000",
            .b_out_of_range => "b must be between 0 and 1",
            .unknown_normalisation => "normalisation must be 0 (min-max) or 1 (theoretical)",
            .statistics_out_of_range => "statistics need a document count of at least 1 and no " ++
                "frequency above it",
            .titles_length_mismatch => "there must be as many titles as texts, or none at all",
            .too_many_candidates => "more than 1048576 texts; pass them in parts",
            .text_too_long => "more than 2147483648 bytes of text; pass less at once",
            .query_too_long => "a query of more than 1048576 bytes or 1024 different terms; shorten it",
            .buffer_too_small => "the output buffer is too small; see the count that was written",
            .out_of_memory => "out of memory",
            .resemblance_out_of_range => "resemblance must be above 0 and at most 1",
            .too_many_texts_to_group => "more than 4096 texts or 67108864 bytes of them to group",
            .title_out_of_range => "the weight of titles must be between 0 and 1000",
            .proximity_out_of_range => "the weight of proximity must be between 0 and 1000",
            .unknown_store => "there is no store of this handle; it may have been closed",
            .too_many_stores => "more than 64 open stores; close one",
            .ids_malformed => "ids must be as many as counted, none empty, separated by newlines",
        };
    }
};

/// What a caller can do wrong: one error for each status but `ok` and `out_of_memory`.
pub const Misuse = error{
    NullPointer,
    LengthMismatch,
    OffsetsNotMonotone,
    OffsetOutOfRange,
    SimilarityNotFinite,
    AlphaOutOfRange,
    K1OutOfRange,
    BOutOfRange,
    UnknownNormalisation,
    StatisticsOutOfRange,
    TitlesLengthMismatch,
    TooManyCandidates,
    TextTooLong,
    QueryTooLong,
    BufferTooSmall,
    ResemblanceOutOfRange,
    TooManyTextsToGroup,
    TitleOutOfRange,
    ProximityOutOfRange,
    UnknownStore,
    TooManyStores,
    IdsMalformed,
};

pub const Failure = Misuse || std.mem.Allocator.Error;

/// The number that an exported function answers.
pub fn codeOf(result: Failure!void) u32 {
    const status: Status = if (result) |_| .ok else |failure| switch (failure) {
        error.NullPointer => .null_pointer,
        error.LengthMismatch => .length_mismatch,
        error.OffsetsNotMonotone => .offsets_not_monotone,
        error.OffsetOutOfRange => .offset_out_of_range,
        error.SimilarityNotFinite => .similarity_not_finite,
        error.AlphaOutOfRange => .alpha_out_of_range,
        error.K1OutOfRange => .k1_out_of_range,
        error.BOutOfRange => .b_out_of_range,
        error.UnknownNormalisation => .unknown_normalisation,
        error.StatisticsOutOfRange => .statistics_out_of_range,
        error.TitlesLengthMismatch => .titles_length_mismatch,
        error.TooManyCandidates => .too_many_candidates,
        error.TextTooLong => .text_too_long,
        error.QueryTooLong => .query_too_long,
        error.BufferTooSmall => .buffer_too_small,
        error.OutOfMemory => .out_of_memory,
        error.ResemblanceOutOfRange => .resemblance_out_of_range,
        error.TooManyTextsToGroup => .too_many_texts_to_group,
        error.TitleOutOfRange => .title_out_of_range,
        error.ProximityOutOfRange => .proximity_out_of_range,
        error.UnknownStore => .unknown_store,
        error.TooManyStores => .too_many_stores,
        error.IdsMalformed => .ids_malformed,
    };
    return @intFromEnum(status);
}
