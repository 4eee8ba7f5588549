//! The C ABI of include/sluice_rerank.h: the only exports of the library.
//!
//! Every function checks null, shape and bounds of what it is given before it reads it, answers
//! with a status and keeps nothing between calls; scratch lives in an arena that ends with the
//! call. It must never abort the process, whatever a caller passes as a value, and never hold a
//! thought about ranking: that is the core's.

const builtin = @import("builtin");
const std = @import("std");
const Allocator = std.mem.Allocator;
const bm25 = @import("core/bm25.zig");
const fusion = @import("core/fusion.zig");
const Highlights = @import("core/highlight.zig").Highlights;
const Status = @import("status.zig").Status;
const Terms = @import("core/terms.zig").Terms;

/// Raised by every change of a layout, of a meaning or of a status.
const abi_version = 1;

const max_candidates = 1 << 20;
const max_text_bytes = 1 << 31;
const max_query_bytes = 1 << 20;
const max_k1 = 1000;
const min_average_length = 1e-9;
const max_average_length = 1e12;

/// A panic would be a defect of this library. It says what broke and traps, without the machinery
/// of stack traces, so that the library needs nothing from the process that loads it.
pub const panic = std.debug.FullPanic(trap);

fn trap(message: []const u8, _: ?usize) noreturn {
    if (builtin.os.tag == .linux) {
        const prefix = "libsluice_rerank: ";
        _ = std.os.linux.write(2, prefix, prefix.len);
        _ = std.os.linux.write(2, message.ptr, message.len);
        _ = std.os.linux.write(2, "\n", 1);
    }
    @trap();
}

// Callers may hand over pointers of any alignment, hence align(1) throughout.

pub const Text = extern struct {
    bytes: ?[*]const u8,
    byte_count: u64,
};

pub const Candidates = extern struct {
    bytes: ?[*]const u8,
    byte_count: u64,
    offsets: ?[*]align(1) const u32,
    offset_count: u64,
    similarities: ?[*]align(1) const f32,
    similarity_count: u64,
};

pub const Options = extern struct {
    alpha: f64,
    k1: f64,
    b: f64,
    normalisation: u32,
    reserved: u32,
};

pub const Statistics = extern struct {
    document_count: u64,
    average_length: f64,
    document_frequencies: ?[*]align(1) const u64,
    term_count: u64,
};

pub const Scores = extern struct {
    fused: ?[*]align(1) f32,
    dense: ?[*]align(1) f32,
    lexical_raw: ?[*]align(1) f32,
    lexical: ?[*]align(1) f32,
    capacity: u64,
};

pub const PackedTerms = extern struct {
    bytes: ?[*]u8,
    byte_capacity: u64,
    offsets: ?[*]align(1) u32,
    offset_capacity: u64,
    byte_count: u64,
    term_count: u64,
};

pub const Span = extern struct { start: u32, end: u32 };

pub const Spans = extern struct {
    spans: ?[*]align(1) Span,
    capacity: u64,
    count: u64,
};

const Misuse = error{
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
    StatisticsLengthMismatch,
    TooManyCandidates,
    TextTooLong,
    QueryTooLong,
    BufferTooSmall,
};

const Failure = Misuse || Allocator.Error;

fn statusOf(result: Failure!void) Status {
    if (result) |_| return .ok else |failure| return switch (failure) {
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
        error.StatisticsLengthMismatch => .statistics_length_mismatch,
        error.TooManyCandidates => .too_many_candidates,
        error.TextTooLong => .text_too_long,
        error.QueryTooLong => .query_too_long,
        error.BufferTooSmall => .buffer_too_small,
        error.OutOfMemory => .out_of_memory,
    };
}

export fn sluice_rerank_abi_version() u32 {
    return abi_version;
}

export fn sluice_rerank_status_message(code: u32) [*:0]const u8 {
    const status = std.enums.fromInt(Status, code) orelse return "unknown status";
    return status.message();
}

export fn sluice_rerank_analyze(
    text: ?*align(1) const Text,
    terms: ?*align(1) PackedTerms,
) u32 {
    return @intFromEnum(statusOf(analyze(text, terms)));
}

export fn sluice_rerank_score(
    query: ?*align(1) const Text,
    candidates: ?*align(1) const Candidates,
    options: ?*align(1) const Options,
    statistics: ?*align(1) const Statistics,
    scores: ?*align(1) const Scores,
) u32 {
    return @intFromEnum(statusOf(score(query, candidates, options, statistics, scores)));
}

export fn sluice_rerank_highlight(
    query: ?*align(1) const Text,
    text: ?*align(1) const Text,
    spans: ?*align(1) Spans,
) u32 {
    return @intFromEnum(statusOf(highlight(query, text, spans)));
}

fn analyze(text: ?*align(1) const Text, output: ?*align(1) PackedTerms) Failure!void {
    var scratch = std.heap.ArenaAllocator.init(std.heap.page_allocator);
    defer scratch.deinit();
    const out = output orelse return error.NullPointer;
    const bytes = try textOf(text, max_text_bytes, error.TextTooLong);
    const terms = try Terms.init(scratch.allocator(), bytes);

    var byte_count: u64 = 0;
    for (terms.slice()) |term| byte_count += term.len;
    out.byte_count = byte_count;
    out.term_count = terms.count();
    if (out.byte_capacity < byte_count or out.offset_capacity < terms.count() + 1) {
        return error.BufferTooSmall;
    }
    // Lower case can take more bytes than the text had.
    if (byte_count > std.math.maxInt(u32)) return error.TextTooLong;
    const offsets = out.offsets orelse return error.NullPointer;
    if (out.bytes == null and byte_count > 0) return error.NullPointer;

    offsets[0] = 0;
    var end: u32 = 0;
    for (terms.slice(), 1..) |term, index| {
        @memcpy(out.bytes.?[end..][0..term.len], term);
        end += @intCast(term.len);
        offsets[index] = end;
    }
}

fn score(
    query: ?*align(1) const Text,
    candidates: ?*align(1) const Candidates,
    options: ?*align(1) const Options,
    given_statistics: ?*align(1) const Statistics,
    output: ?*align(1) const Scores,
) Failure!void {
    var scratch = std.heap.ArenaAllocator.init(std.heap.page_allocator);
    defer scratch.deinit();
    const arena = scratch.allocator();

    const query_bytes = try textOf(query, max_query_bytes, error.QueryTooLong);
    const similarities, const texts = try candidatesOf(candidates);
    const settings = try settingsOf(options);
    const out = try columnsOf(output, similarities.len);
    const terms = try Terms.init(arena, query_bytes);

    const dense = try arena.alloc(f64, similarities.len);
    for (dense, similarities) |*value, similarity| {
        if (!std.math.isFinite(similarity)) return error.SimilarityNotFinite;
        value.* = similarity;
    }
    const checked_statistics = try statisticsOf(arena, given_statistics, terms.count());
    const occurrences = try bm25.Occurrences.init(arena, &terms, texts);
    const statistics = checked_statistics orelse try occurrences.statistics(arena);
    const lexical = try occurrences.scores(arena, statistics, settings.bm25);

    for (out.lexical_raw, lexical) |*value, raw| value.* = @floatCast(raw);
    fusion.normalise(dense, settings.normalisation, fusion.cosine_minimum);
    fusion.normalise(lexical, settings.normalisation, fusion.bm25_minimum);
    for (out.dense, out.lexical, out.fused, dense, lexical) |*d, *l, *f, by_meaning, by_words| {
        d.* = @floatCast(by_meaning);
        l.* = @floatCast(by_words);
        f.* = @floatCast(fusion.fuse(by_meaning, by_words, settings.alpha));
    }
}

fn highlight(
    query: ?*align(1) const Text,
    text: ?*align(1) const Text,
    output: ?*align(1) Spans,
) Failure!void {
    var scratch = std.heap.ArenaAllocator.init(std.heap.page_allocator);
    defer scratch.deinit();
    const out = output orelse return error.NullPointer;
    if (out.spans == null and out.capacity > 0) return error.NullPointer;
    const query_bytes = try textOf(query, max_query_bytes, error.QueryTooLong);
    const bytes = try textOf(text, max_text_bytes, error.TextTooLong);
    const terms = try Terms.init(scratch.allocator(), query_bytes);

    var count: u64 = 0;
    var highlights = Highlights.init(&terms, bytes);
    while (highlights.next()) |span| : (count += 1) {
        if (count >= out.capacity) continue;
        out.spans.?[@intCast(count)] = .{ .start = @intCast(span.start), .end = @intCast(span.end) };
    }
    out.count = count;
    if (count > out.capacity) return error.BufferTooSmall;
}

fn textOf(pointer: ?*align(1) const Text, max_bytes: u64, too_long: Misuse) Misuse![]const u8 {
    const text = (pointer orelse return error.NullPointer).*;
    if (text.byte_count > max_bytes) return too_long;
    if (text.byte_count == 0) return "";
    const bytes = text.bytes orelse return error.NullPointer;
    return bytes[0..@intCast(text.byte_count)];
}

fn candidatesOf(
    pointer: ?*align(1) const Candidates,
) Misuse!struct { []align(1) const f32, bm25.PackedTexts } {
    const candidates = (pointer orelse return error.NullPointer).*;
    const count = candidates.similarity_count;
    if (count > max_candidates) return error.TooManyCandidates;
    if (candidates.offset_count != count + 1) return error.LengthMismatch;
    const block: Text = .{ .bytes = candidates.bytes, .byte_count = candidates.byte_count };
    const bytes = try textOf(&block, max_text_bytes, error.TextTooLong);

    const offset_pointer = candidates.offsets orelse return error.NullPointer;
    const offsets = offset_pointer[0..@intCast(candidates.offset_count)];
    for (offsets[0 .. offsets.len - 1], offsets[1..]) |start, end| {
        if (end < start) return error.OffsetsNotMonotone;
    }
    if (offsets[offsets.len - 1] > bytes.len) return error.OffsetOutOfRange;

    const texts: bm25.PackedTexts = .{ .bytes = bytes, .offsets = offsets };
    if (count == 0) return .{ &.{}, texts };
    const similarities = candidates.similarities orelse return error.NullPointer;
    return .{ similarities[0..@intCast(count)], texts };
}

const Settings = struct { alpha: f64, bm25: bm25.Parameters, normalisation: fusion.Normalisation };

fn settingsOf(pointer: ?*align(1) const Options) Misuse!Settings {
    const options = (pointer orelse return error.NullPointer).*;
    if (!isWithin(options.alpha, 0, 1)) return error.AlphaOutOfRange;
    if (!isWithin(options.k1, 0, max_k1)) return error.K1OutOfRange;
    if (!isWithin(options.b, 0, 1)) return error.BOutOfRange;
    return .{
        .alpha = options.alpha,
        .bm25 = .{ .k1 = options.k1, .b = options.b },
        .normalisation = switch (options.normalisation) {
            0 => .min_max,
            1 => .theoretical,
            else => return error.UnknownNormalisation,
        },
    };
}

/// Null where the caller gave none. The frequencies are copied, so what was checked is what is used.
fn statisticsOf(
    arena: Allocator,
    pointer: ?*align(1) const Statistics,
    term_count: usize,
) Failure!?bm25.Statistics {
    const statistics = (pointer orelse return null).*;
    if (statistics.term_count != term_count) return error.StatisticsLengthMismatch;
    if (statistics.document_count == 0) return error.StatisticsOutOfRange;
    if (!isWithin(statistics.average_length, min_average_length, max_average_length)) {
        return error.StatisticsOutOfRange;
    }
    const frequencies = try arena.alloc(u64, term_count);
    for (frequencies, 0..) |*frequency, index| {
        const given = statistics.document_frequencies orelse return error.NullPointer;
        frequency.* = given[index];
        if (frequency.* > statistics.document_count) return error.StatisticsOutOfRange;
    }
    return .{
        .document_count = statistics.document_count,
        .average_length = statistics.average_length,
        .document_frequencies = frequencies,
    };
}

const Column = []align(1) f32;
const Columns = struct { fused: Column, dense: Column, lexical_raw: Column, lexical: Column };

fn columnsOf(pointer: ?*align(1) const Scores, count: usize) Misuse!Columns {
    const scores = (pointer orelse return error.NullPointer).*;
    if (scores.capacity < count) return error.BufferTooSmall;
    return .{
        .fused = try columnOf(scores.fused, count),
        .dense = try columnOf(scores.dense, count),
        .lexical_raw = try columnOf(scores.lexical_raw, count),
        .lexical = try columnOf(scores.lexical, count),
    };
}

fn columnOf(pointer: ?[*]align(1) f32, count: usize) Misuse!Column {
    if (count == 0) return &.{};
    const column = pointer orelse return error.NullPointer;
    return column[0..count];
}

/// False for NaN too.
fn isWithin(value: f64, low: f64, high: f64) bool {
    return value >= low and value <= high;
}

test {
    _ = @import("core/bm25.zig");
    _ = @import("core/fusion.zig");
    _ = @import("core/highlight.zig");
    _ = @import("core/stemmer.zig");
    _ = @import("core/stopwords.zig");
    _ = @import("core/terms.zig");
    _ = @import("core/tokenizer.zig");
    _ = @import("core/unicode.zig");
}

/// Defined in header_layout.c: a size and then the offsets of the fields, struct after struct.
extern const sluice_header_layout: [41]usize;
extern const sluice_header_layout_count: usize;
extern const sluice_header_constants: [3]u64;

test "the header and this file lay out every struct alike" {
    const structs = .{ Text, Candidates, Options, Statistics, Scores, PackedTerms, Span, Spans };
    var index: usize = 0;
    inline for (structs) |Struct| {
        try std.testing.expectEqual(sluice_header_layout[index], @sizeOf(Struct));
        index += 1;
        inline for (std.meta.fields(Struct)) |field| {
            try std.testing.expectEqual(sluice_header_layout[index], @offsetOf(Struct, field.name));
            index += 1;
        }
    }
    try std.testing.expectEqual(sluice_header_layout_count, index);
    try std.testing.expectEqual(sluice_header_constants[0], abi_version);
    try std.testing.expectEqual(sluice_header_constants[1], std.enums.values(Status).len);
    try std.testing.expectEqual(sluice_header_constants[2], @intFromEnum(Status.out_of_memory));
}
