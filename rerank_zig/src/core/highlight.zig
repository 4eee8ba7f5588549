//! Finds where a query's terms stand in a text. Pure, without allocation.

const std = @import("std");
const Terms = @import("terms.zig").Terms;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

/// Bytes start..end of a text, the end excluded.
pub const Span = struct { start: usize, end: usize };

/// Walks the words of a text whose term is one of the query's, in ascending order.
pub const Highlights = struct {
    terms: *const Terms,
    tokenizer: Tokenizer,

    pub fn init(terms: *const Terms, text: []const u8) Highlights {
        return .{ .terms = terms, .tokenizer = .init(text) };
    }

    pub fn next(highlights: *Highlights) ?Span {
        while (highlights.tokenizer.next()) |token| {
            if (highlights.terms.ordinal(token.term) == null) continue;
            return .{ .start = token.start, .end = token.end };
        }
        return null;
    }
};

test "every form of a query's word is found" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const terms = try Terms.init(arena.allocator(), "compact regions");
    var highlights = Highlights.init(&terms, "Compaction? No: compacted the Región and region.");
    try std.testing.expectEqual(Span{ .start = 0, .end = 10 }, highlights.next().?);
    try std.testing.expectEqual(Span{ .start = 16, .end = 25 }, highlights.next().?);
    try std.testing.expectEqual(Span{ .start = 42, .end = 48 }, highlights.next().?);
    try std.testing.expectEqual(null, highlights.next());
}
