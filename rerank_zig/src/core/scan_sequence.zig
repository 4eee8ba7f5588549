//! Tells which of the hashes that a store keeps of a chunk could be the query's terms, by their low
//! halves, which decide almost always. Pure. It may let a hash through that is no term's, never the
//! other way round.
//!
//! A block of halves is compared with every term of the query; for a query of many terms, it costs
//! less to look each half up in a table.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Query = @import("query.zig").Query;

/// Halves come in whole blocks, filled up with zeros, which are no term's hash.
pub const block = 64;

/// Above, the table is faster: measured from 18 terms on with SSE2, from 24 on with AVX2.
const max_compared_terms = 16;

const Half = @Vector(block / 2, u16);

/// Whether a term has these lowest bits.
const Filter = [1 << 12]bool;

pub const Finder = struct {
    query: *const Query,
    way: Way,

    const Way = union(enum) {
        /// The low half of each term's hash, spread over half a block.
        compare: []const Half,
        look_up: *const Filter,
    };

    /// All memory comes from the arena, which outlives the finder, as the query does.
    pub fn init(arena: Allocator, query: *const Query) Allocator.Error!Finder {
        const compares = query.hashes.len <= max_compared_terms;
        return .{ .query = query, .way = if (compares)
            .{ .compare = try spreadOf(arena, query.hashes) }
        else
            .{ .look_up = try filterOf(arena, query.hashes) } };
    }

    /// Which of a block could be a term's, one bit each.
    pub inline fn candidates(finder: *const Finder, low: *const [block]u16) u64 {
        return switch (finder.way) {
            .compare => |spread| compared(spread, low),
            .look_up => |filter| lookedUp(filter, low),
        };
    }
};

fn spreadOf(arena: Allocator, hashes: []const u32) Allocator.Error![]const Half {
    const spread = try arena.alloc(Half, hashes.len);
    for (spread, hashes) |*value, hash| value.* = @splat(@truncate(hash));
    return spread;
}

fn filterOf(arena: Allocator, hashes: []const u32) Allocator.Error!*const Filter {
    const filter = try arena.create(Filter);
    filter.* = @splat(false);
    for (hashes) |hash| filter[hash % filter.len] = true;
    return filter;
}

/// Those that have a term's low half.
fn compared(spread: []const Half, low: *const [block]u16) u64 {
    const first = comparedHalf(spread, low[0 .. block / 2]);
    return first | @as(u64, comparedHalf(spread, low[block / 2 ..])) << block / 2;
}

inline fn comparedHalf(spread: []const Half, low: *const [block / 2]u16) u32 {
    const all: Half = @splat(std.math.maxInt(u16));
    const none: Half = @splat(0);
    const values: Half = low.*;
    var same = none;
    for (spread) |*term| same |= @select(u16, values == term.*, all, none);
    return @bitCast(same != none);
}

/// Those that have a term's lowest bits.
fn lookedUp(filter: *const Filter, low: *const [block]u16) u64 {
    var found: u64 = 0;
    inline for (low, 0..) |half, place| {
        found |= @as(u64, @intFromBool(filter[half % filter.len])) << place;
    }
    return found;
}

const testing = std.testing;

fn expectBothWays(arena: Allocator, query: *const Query, hashes: []const u32) !void {
    const low = try arena.alloc(u16, std.mem.alignForward(usize, hashes.len, block));
    @memset(low, 0);
    for (hashes, low[0..hashes.len]) |hash, *half| half.* = @truncate(hash);
    for ([_]Finder{
        .{ .query = query, .way = .{ .compare = try spreadOf(arena, query.hashes) } },
        .{ .query = query, .way = .{ .look_up = try filterOf(arena, query.hashes) } },
    }) |finder| {
        var found: std.ArrayList(usize) = .empty;
        var start: usize = 0;
        while (start < low.len) : (start += block) {
            const candidates = finder.candidates(low[start..][0..block]);
            for (start..start + block) |place| {
                if (candidates >> @intCast(place - start) & 1 == 0 or place >= hashes.len) continue;
                if (query.find(hashes[place]) != null) try found.append(arena, place);
            }
        }
        // The oracle: one hash after the other.
        var expected: std.ArrayList(usize) = .empty;
        for (hashes, 0..) |hash, place| {
            if (query.find(hash) != null) try expected.append(arena, place);
        }
        try testing.expectEqualSlices(usize, expected.items, found.items);
    }
}

test "both ways find what one by one finds, at every tail length" {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    var random_state = std.Random.DefaultPrng.init(5);
    const random = random_state.random();
    const queries = [_][]const u8{ "", "fox", "red fox's NN-HA-42 dataNode den", "a1 b2 c3 " ** 9 ++
        "one two three four five six seven eight nine ten eleven twelve red fox den hen pen" };
    for (queries) |text| {
        for (0..3 * block + 2) |length| {
            defer _ = arena_state.reset(.retain_capacity);
            const arena = arena_state.allocator();
            const query = try Query.init(arena, text);
            const hashes = try arena.alloc(u32, length);
            for (hashes) |*hash| hash.* = switch (random.uintLessThan(u8, 4)) {
                0 => 0,
                1 => random.int(u32),
                // A term, and what only looks like one by its low half.
                else => |choice| if (query.hashes.len == 0) 0 else near: {
                    const term = query.hashes[random.uintLessThan(usize, query.hashes.len)];
                    break :near if (choice == 2) term else term ^ 1 << 20;
                },
            };
            try expectBothWays(arena, &query, hashes);
        }
    }
}

test "few terms are compared, many looked up" {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const few = try Query.init(arena, "b c d e f g h j k l m n o p q r");
    try testing.expectEqual(max_compared_terms, few.hashes.len);
    try testing.expect((try Finder.init(arena, &few)).way == .compare);
    const many = try Query.init(arena, "b c d e f g h j k l m n o p q r u");
    try testing.expect((try Finder.init(arena, &many)).way == .look_up);
}
