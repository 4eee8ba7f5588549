//! Finds where a query's terms stand in a text. Pure, without allocation.

const std = @import("std");
const Query = @import("query.zig").Query;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

/// Bytes start..end of a text, the end excluded.
pub const Span = struct { start: usize, end: usize };

/// Walks the places of a text that hold a term of the query, in ascending order and without
/// overlap: a whole word where it or a part of it matches, a whole run where the compound does.
pub const Highlights = struct {
    query: *const Query,
    tokenizer: Tokenizer,
    /// Found, but a compound that begins with it may still take its place.
    waiting: ?Span = null,

    pub fn init(query: *const Query, text: []const u8) Highlights {
        return .{ .query = query, .tokenizer = .init(text) };
    }

    pub fn next(highlights: *Highlights) ?Span {
        while (highlights.tokenizer.next()) |token| {
            if (highlights.query.find(token.term.hash()) == null) continue;
            const found: Span = .{ .start = token.start, .end = token.end };
            const waiting = highlights.waiting orelse {
                highlights.waiting = found;
                continue;
            };
            if (found.start >= waiting.end) {
                highlights.waiting = found;
                return waiting;
            }
            // A part of the same word, a word within the run, or the run of the same first word.
            if (found.start == waiting.start) {
                highlights.waiting.?.end = @max(found.end, waiting.end);
            }
        }
        defer highlights.waiting = null;
        return highlights.waiting;
    }
};

fn expectSpans(query_text: []const u8, text: []const u8, expected: []const []const u8) !void {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const query = try Query.init(arena.allocator(), query_text);
    var highlights = Highlights.init(&query, text);
    for (expected) |marked| {
        const span = highlights.next() orelse return error.TestTooFewSpans;
        try std.testing.expectEqualStrings(marked, text[span.start..span.end]);
    }
    try std.testing.expectEqual(null, highlights.next());
}

test "every form of a query's word is found" {
    try expectSpans(
        "compact regions",
        "Compaction? No: compacted the Región and region.",
        &.{ "Compaction", "compacted", "region" },
    );
}

test "a part marks its word and a compound its run" {
    try expectSpans("node", "DataNode node_7 nodes", &.{ "DataNode", "node", "nodes" });
    try expectSpans("nn-ha-42", "an NN-HA-42 or HA-42, 42", &.{ "NN-HA-42", "HA", "42", "42" });
    try expectSpans("to_be", "to_be or to be", &.{"to_be"});
    try expectSpans("data_dir", "data_dir.data_dir", &.{ "data", "dir", "data", "dir" });
}
