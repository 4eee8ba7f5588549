//! What is known of the collection behind the candidates: how common its words are. Pure.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Found = @import("scan.zig").Found;

pub const Collection = struct {
    chunk_count: u64,
    /// Words a chunk, of its text and of its title.
    text_average: f64,
    title_average: f64,
    /// By the ordinal of the query's terms: chunks that hold it; none is above `chunk_count`.
    frequencies: []const u64,

    /// Counts the candidates themselves, for when the collection is not known.
    pub fn ofCandidates(
        arena: Allocator,
        term_count: usize,
        found: Found,
    ) Allocator.Error!Collection {
        const frequencies = try arena.alloc(u64, term_count);
        @memset(frequencies, 0);
        // The candidate, counted from 1, that a term was last seen in.
        const last = try arena.alloc(usize, term_count);
        @memset(last, 0);
        for (found.matches) |match| {
            const number = @as(usize, match.candidate()) + 1;
            frequencies[match.ordinal] += @intFromBool(last[match.ordinal] != number);
            last[match.ordinal] = number;
        }
        // Of titles and of texts.
        var words: [2]u64 = @splat(0);
        for (found.lengths, 0..) |length, field| words[field % 2] += length;
        return init(found.candidateCount(), words[1], words[0], frequencies);
    }

    pub fn init(
        chunk_count: u64,
        text_words: u64,
        title_words: u64,
        frequencies: []const u64,
    ) Collection {
        const count: f64 = @floatFromInt(@max(1, chunk_count));
        return .{
            .chunk_count = chunk_count,
            .text_average = @as(f64, @floatFromInt(@max(1, text_words))) / count,
            .title_average = @as(f64, @floatFromInt(@max(1, title_words))) / count,
            .frequencies = frequencies,
        };
    }

    /// ln(1 + (N - df + 0.5) / (df + 0.5)), as Lucene has it, which is never negative.
    pub fn inverseFrequency(collection: Collection, ordinal: usize) f64 {
        const count: f64 = @floatFromInt(collection.chunk_count);
        const held: f64 = @floatFromInt(collection.frequencies[ordinal]);
        return @log(1 + (count - held + 0.5) / (held + 0.5));
    }
};

test "inverse document frequency" {
    const collection: Collection = .init(2, 2, 2, &.{ 0, 2 });
    try std.testing.expectApproxEqAbs(@log(1.0 + 2.5 / 0.5), collection.inverseFrequency(0), 1e-12);
    try std.testing.expectApproxEqAbs(@log(1.0 + 0.5 / 2.5), collection.inverseFrequency(1), 1e-12);
}

test "statistics of the candidates count a chunk once" {
    var arena_state = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena_state.deinit();
    const found = try Collection.ofCandidates(arena_state.allocator(), 3, .{
        .matches = &.{
            .{ .position = 0, .field = 0, .ordinal = 0 },
            .{ .position = 1, .field = 1, .ordinal = 0 },
            .{ .position = 2, .field = 1, .ordinal = 0 },
            .{ .position = 1, .field = 3, .ordinal = 1 },
        },
        .lengths = &.{ 1, 5, 0, 6 },
    });
    try std.testing.expectEqual(2, found.chunk_count);
    try std.testing.expectEqual(5.5, found.text_average);
    try std.testing.expectEqual(0.5, found.title_average);
    try std.testing.expectEqualSlices(u64, &.{ 1, 1, 0 }, found.frequencies);
}
