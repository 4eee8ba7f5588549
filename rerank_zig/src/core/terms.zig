//! The unique terms of a text in order of first appearance.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

/// All memory comes from `arena`.
pub fn unique(arena: Allocator, text: []const u8) Allocator.Error![]const []const u8 {
    var terms: std.array_hash_map.String(void) = .empty;
    var tokenizer = Tokenizer.init(text);
    while (tokenizer.next()) |token| {
        if (terms.contains(token.term.bytes)) continue;
        try terms.put(arena, try arena.dupe(u8, token.term.bytes), {});
    }
    return terms.keys();
}

test "unique stems in order of first appearance" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const terms = try unique(arena.allocator(), "shards, nodes; a shard of NODE 7");
    const expected = [_][]const u8{ "shard", "node", "7" };
    try std.testing.expectEqual(expected.len, terms.len);
    for (expected, terms) |term, found| try std.testing.expectEqualStrings(term, found);
}
