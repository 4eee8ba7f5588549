//! BM25 of a query's terms over candidate texts. Pure; scratch comes from the caller's arena.
//!
//! score(D) = Σ over the query's unique terms t of idf(t) · tf·(k1 + 1) / (tf + k1·(1 - b + b·|D|/avg))
//! after Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
//! with idf(t) = ln(1 + (N - df + 0.5)/(df + 0.5)) as Lucene has it, which is never negative.
//! |D| counts the terms of D after stop words. A term that the query repeats counts once.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Terms = @import("terms.zig").Terms;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

pub const Parameters = struct { k1: f64, b: f64 };

/// What BM25 knows of the collection. `document_frequencies` follows the order of the query's
/// terms; none is above `document_count`.
pub const Statistics = struct {
    document_count: u64,
    average_length: f64,
    document_frequencies: []const u64,
};

/// Texts packed one after the other: text i is bytes[offsets[i]..offsets[i + 1]].
pub const PackedTexts = struct {
    bytes: []const u8,
    offsets: []align(1) const u32,

    pub fn count(texts: PackedTexts) usize {
        return texts.offsets.len - 1;
    }

    pub fn get(texts: PackedTexts, index: usize) []const u8 {
        return texts.bytes[texts.offsets[index]..texts.offsets[index + 1]];
    }
};

pub fn inverseDocumentFrequency(document_count: u64, document_frequency: u64) f64 {
    const count: f64 = @floatFromInt(document_count);
    const frequency: f64 = @floatFromInt(document_frequency);
    return @log(1 + (count - frequency + 0.5) / (frequency + 0.5));
}

pub fn termWeight(frequency: f64, relative_length: f64, parameters: Parameters) f64 {
    const k1, const b = .{ parameters.k1, parameters.b };
    return frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * relative_length));
}

/// Where the query's terms occur in the candidates. The postings of candidate i are
/// postings[ends[i - 1]..ends[i]], from 0 for the first.
pub const Occurrences = struct {
    const Posting = struct { term: u32, frequency: u32 };

    postings: []const Posting,
    ends: []const usize,
    lengths: []const u32,
    term_count: usize,

    /// Reads every candidate once.
    pub fn init(arena: Allocator, terms: *const Terms, texts: PackedTexts) Allocator.Error!Occurrences {
        const ends = try arena.alloc(usize, texts.count());
        const lengths = try arena.alloc(u32, texts.count());
        const frequencies = try arena.alloc(u32, terms.count());
        @memset(frequencies, 0);
        const seen = try arena.alloc(u32, terms.count());
        var postings: std.ArrayList(Posting) = .empty;

        for (ends, lengths, 0..) |*end, *length, index| {
            length.* = 0;
            var seen_count: usize = 0;
            var tokenizer = Tokenizer.init(texts.get(index));
            while (tokenizer.next()) |token| {
                length.* += 1;
                const term = terms.ordinal(token.term) orelse continue;
                if (frequencies[term] == 0) {
                    seen[seen_count] = @intCast(term);
                    seen_count += 1;
                }
                frequencies[term] += 1;
            }
            for (seen[0..seen_count]) |term| {
                try postings.append(arena, .{ .term = term, .frequency = frequencies[term] });
                frequencies[term] = 0;
            }
            end.* = postings.items.len;
        }
        return .{
            .postings = postings.items,
            .ends = ends,
            .lengths = lengths,
            .term_count = terms.count(),
        };
    }

    /// Statistics of the candidates themselves, for when the collection's are not known.
    pub fn statistics(occurrences: Occurrences, arena: Allocator) Allocator.Error!Statistics {
        const frequencies = try arena.alloc(u64, occurrences.term_count);
        @memset(frequencies, 0);
        for (occurrences.postings) |posting| frequencies[posting.term] += 1;

        var total_length: u64 = 0;
        for (occurrences.lengths) |length| total_length += length;
        const count: f64 = @floatFromInt(@max(1, occurrences.lengths.len));
        return .{
            .document_count = occurrences.lengths.len,
            .average_length = @as(f64, @floatFromInt(total_length)) / count,
            .document_frequencies = frequencies,
        };
    }

    /// The BM25 score of every candidate, in their order.
    pub fn scores(
        occurrences: Occurrences,
        arena: Allocator,
        collection: Statistics,
        parameters: Parameters,
    ) Allocator.Error![]f64 {
        std.debug.assert(collection.document_frequencies.len == occurrences.term_count);
        const idf = try arena.alloc(f64, occurrences.term_count);
        for (idf, collection.document_frequencies) |*value, frequency| {
            value.* = inverseDocumentFrequency(collection.document_count, frequency);
        }
        const column = try arena.alloc(f64, occurrences.ends.len);
        var start: usize = 0;
        for (column, occurrences.ends, occurrences.lengths) |*score, end, length| {
            score.* = 0;
            const relative_length = @as(f64, @floatFromInt(length)) / collection.average_length;
            for (occurrences.postings[start..end]) |posting| {
                const frequency: f64 = @floatFromInt(posting.frequency);
                score.* += idf[posting.term] * termWeight(frequency, relative_length, parameters);
            }
            start = end;
        }
        return column;
    }
};

const testing = std.testing;

test "inverse document frequency" {
    try testing.expectApproxEqAbs(@log(1.0 + 2.5 / 0.5), inverseDocumentFrequency(2, 0), 1e-12);
    try testing.expectApproxEqAbs(@log(1.0 + 0.5 / 2.5), inverseDocumentFrequency(2, 2), 1e-12);
}

test "term weight saturates with frequency and falls with length" {
    const parameters: Parameters = .{ .k1 = 1.2, .b = 0.75 };
    try testing.expectApproxEqAbs(1.0, termWeight(1, 1, parameters), 1e-12);
    try testing.expect(termWeight(1e9, 1, parameters) < 2.2);
    try testing.expect(termWeight(2, 2, parameters) < termWeight(2, 1, parameters));
    try testing.expectEqual(1.0, termWeight(7, 3, .{ .k1 = 0, .b = 0.75 }));
}

test "scores over candidates" {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const parameters: Parameters = .{ .k1 = 1.2, .b = 0.75 };

    const terms = try Terms.init(arena, "red fox fox");
    const texts: PackedTexts = .{ .bytes = "red foxeslazy dog", .offsets = &.{ 0, 9, 17, 17 } };
    const occurrences = try Occurrences.init(arena, &terms, texts);
    const statistics = try occurrences.statistics(arena);
    try testing.expectEqual(3, statistics.document_count);
    try testing.expectApproxEqAbs(4.0 / 3.0, statistics.average_length, 1e-12);
    try testing.expectEqualSlices(u64, &.{ 1, 1 }, statistics.document_frequencies);

    const column = try occurrences.scores(arena, statistics, parameters);
    const expected = 2 * @log(1 + 2.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 1.5));
    try testing.expectApproxEqAbs(expected, column[0], 1e-12);
    try testing.expectEqualSlices(f64, &.{ 0, 0 }, column[1..]);
}

test "no candidate holds any term" {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const terms = try Terms.init(arena, "fox");
    const occurrences = try Occurrences.init(arena, &terms, .{ .bytes = "", .offsets = &.{ 0, 0 } });
    const statistics = try occurrences.statistics(arena);
    const column = try occurrences.scores(arena, statistics, .{ .k1 = 1.2, .b = 0.75 });
    try testing.expectEqualSlices(f64, &.{0}, column);
}
