//! A query as scanning and scoring use it: its unique terms under ordinals, and its words in order.
//! Pure; all memory comes from the caller's arena, which outlives the query.

const std = @import("std");
const Allocator = std.mem.Allocator;
const tokenizer_file = @import("tokenizer.zig");
const Tokenizer = tokenizer_file.Tokenizer;
const unfilled = @import("unfilled.zig").unfilled;

pub const Kind = tokenizer_file.Kind;

/// The term of a word that is no stop word, by its ordinal.
pub const Occurrence = struct { position: u32, ordinal: u16 };

pub const Query = struct {
    /// Unique, in order of first appearance, as `kinds` and `terms`.
    hashes: []const u32,
    /// A term that is a whole word anywhere is a word, though it be a part elsewhere.
    kinds: []const Kind,
    terms: []const []const u8,
    /// Whole words only, ascending by position.
    sequence: []const Occurrence,
    table: Table,

    pub const max_terms = 1024;

    pub fn init(arena: Allocator, text: []const u8) error{ QueryTooLong, OutOfMemory }!Query {
        const table = try Table.init(arena, text.len);
        var hashes: std.ArrayList(u32) = .empty;
        var kinds: std.ArrayList(Kind) = .empty;
        var terms: std.ArrayList([]const u8) = .empty;
        var sequence: std.ArrayList(Occurrence) = .empty;

        var tokenizer = Tokenizer.init(text);
        while (tokenizer.next()) |token| {
            const hash = token.term.hash();
            const ordinal = table.find(hashes.items, hash) orelse added: {
                if (terms.items.len == max_terms) return error.QueryTooLong;
                const ordinal: u16 = @intCast(terms.items.len);
                try hashes.append(arena, hash);
                try kinds.append(arena, token.term.kind);
                try terms.append(arena, try arena.dupe(u8, token.term.bytes));
                table.insert(hash, ordinal);
                break :added ordinal;
            };
            if (token.term.kind != .word) continue;
            kinds.items[ordinal] = .word;
            try sequence.append(arena, .{ .position = token.position, .ordinal = ordinal });
        }
        return .{
            .hashes = hashes.items,
            .kinds = kinds.items,
            .terms = terms.items,
            .sequence = sequence.items,
            .table = table,
        };
    }

    /// The ordinal of the term with this hash, or null.
    pub fn find(query: *const Query, hash: u32) ?u16 {
        return query.table.find(query.hashes, hash);
    }
};

/// Ordinals by hash: open addressing, at most half full.
const Table = struct {
    const free: u16 = std.math.maxInt(u16);

    /// A power of two of them.
    slots: []u16,

    /// For a text of so many bytes, which has at most two terms for each.
    fn init(arena: Allocator, byte_count: usize) Allocator.Error!Table {
        const term_count: usize = @min(2 * byte_count + 1, Query.max_terms);
        const slots = try unfilled(arena, u16, std.math.ceilPowerOfTwoAssert(usize, 2 * term_count));
        @memset(slots, free);
        return .{ .slots = slots };
    }

    fn find(table: Table, hashes: []const u32, hash: u32) ?u16 {
        const mask = table.slots.len - 1;
        var slot = hash & mask;
        while (table.slots[slot] != free) : (slot = (slot + 1) & mask) {
            const ordinal = table.slots[slot];
            if (hashes[ordinal] == hash) return ordinal;
        }
        return null;
    }

    fn insert(table: Table, hash: u32, ordinal: u16) void {
        const mask = table.slots.len - 1;
        var slot = hash & mask;
        while (table.slots[slot] != free) slot = (slot + 1) & mask;
        table.slots[slot] = ordinal;
    }
};

test "unique terms, their kinds and the words in order" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const query = try Query.init(arena.allocator(), "the dataNode of node-7 and Nodes");
    const terms = [_][]const u8{ "datanod", "data", "node", "node-7", "7" };
    try std.testing.expectEqual(terms.len, query.terms.len);
    for (terms, query.terms, 0..) |term, found, ordinal| {
        try std.testing.expectEqualStrings(term, found);
        const kind = query.kinds[ordinal];
        try std.testing.expectEqual(ordinal, query.find(tokenizer_file.hashOf(kind, term)).?);
    }
    try std.testing.expectEqualSlices(
        Kind,
        &.{ .word, .part, .word, .compound, .word },
        query.kinds,
    );
    try std.testing.expectEqualSlices(Occurrence, &.{
        .{ .position = 1, .ordinal = 0 },
        .{ .position = 3, .ordinal = 2 },
        .{ .position = 4, .ordinal = 4 },
        .{ .position = 6, .ordinal = 2 },
    }, query.sequence);
    try std.testing.expectEqual(null, query.find(0));
    try std.testing.expectEqual(null, query.find(tokenizer_file.hashOf(.word, "fox")));
}

test "a query has at most 1024 different terms" {
    var arena_state = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    var text: std.ArrayList(u8) = .empty;
    for (0..Query.max_terms) |number| {
        const word = try std.fmt.allocPrint(arena, "{d} ", .{number + 10_000});
        try text.appendSlice(arena, word);
    }
    try std.testing.expectEqual(Query.max_terms, (try Query.init(arena, text.items)).terms.len);
    try text.appendSlice(arena, "10000 fox");
    try std.testing.expectError(error.QueryTooLong, Query.init(arena, text.items));
}
