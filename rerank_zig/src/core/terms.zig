//! The unique terms of a text in order of first appearance; a query in the form that scoring uses.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

pub const Terms = struct {
    ordinals: std.array_hash_map.String(void) = .empty,

    /// Collects the terms of `text`. All memory comes from `arena`, which outlives the result.
    pub fn init(arena: Allocator, text: []const u8) Allocator.Error!Terms {
        var terms: Terms = .{};
        var tokenizer = Tokenizer.init(text);
        while (tokenizer.next()) |token| {
            if (terms.ordinals.contains(token.term)) continue;
            try terms.ordinals.put(arena, try arena.dupe(u8, token.term), {});
        }
        return terms;
    }

    pub fn count(terms: *const Terms) usize {
        return terms.ordinals.count();
    }

    pub fn slice(terms: *const Terms) []const []const u8 {
        return terms.ordinals.keys();
    }

    /// The place of `term` in `slice`, or null.
    pub fn ordinal(terms: *const Terms, term: []const u8) ?usize {
        return terms.ordinals.getIndex(term);
    }
};

test "unique stems in order of first appearance" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const terms = try Terms.init(arena.allocator(), "shards, nodes; a shard of NODE 7");
    const expected = [_][]const u8{ "shard", "node", "7" };
    try std.testing.expectEqual(expected.len, terms.count());
    for (expected, terms.slice(), 0..) |term, found, ordinal| {
        try std.testing.expectEqualStrings(term, found);
        try std.testing.expectEqual(ordinal, terms.ordinal(term).?);
    }
    try std.testing.expectEqual(null, terms.ordinal("shards"));
}
