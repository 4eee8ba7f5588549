//! Finds the query's terms among the hashes that a store keeps of a chunk. Pure; matches go into
//! room that the caller reserved.
//!
//! The low and the high halves of the hashes stand apart: the low ones decide almost always, so a
//! scan reads and compares half of the bytes. They are compared with every term of the query, a
//! block at a time; for a query of many terms, it costs less to look each of them up in its table.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Match = @import("scan.zig").Match;
const Query = @import("query.zig").Query;

/// Halves come in whole blocks, filled up with zeros, which are no term's hash.
pub const block = 32;

/// How many matches `find` needs room for beyond one for each hash.
pub const spare = 4;

/// Above, the table is faster: measured from 18 terms on with SSE2, from 24 on with AVX2.
const max_compared_terms = 16;

const Block = @Vector(block, u16);

/// Whether a term has these lowest bits.
const Filter = [1 << 12]bool;

pub const Finder = struct {
    query: *const Query,
    way: Way,

    const Way = union(enum) {
        /// The low half of each term's hash, spread over a block.
        compare: []const Block,
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

    /// Appends a match for each hash that is a term's, its place as its position, ascending. There
    /// must be room for `spare` more than there are hashes.
    pub fn find(
        finder: *const Finder,
        low: []const u16,
        high: []const u16,
        matches: *std.ArrayList(Match),
    ) void {
        std.debug.assert(low.len == high.len and low.len % block == 0);
        const room = matches.unusedCapacitySlice();
        std.debug.assert(room.len >= low.len + spare);
        const likely_count = switch (finder.way) {
            .compare => |spread| listCandidates(compared, spread, low, room.ptr),
            .look_up => |filter| listCandidates(lookedUp, filter, low, room.ptr),
        };
        var count: usize = 0;
        for (room[0..likely_count]) |candidate| {
            const place = candidate.position;
            const hash = @as(u32, high[place]) << 16 | low[place];
            const ordinal = finder.query.find(hash) orelse continue;
            room[count] = .{ .position = place, .ordinal = ordinal };
            count += 1;
        }
        matches.items.len += count;
    }
};

/// Lists the places that could hold a term. In nearly every block there are few of them, but how
/// many cannot be foretold; so that the processor need not guess, `spare` are written in any case.
inline fn listCandidates(
    comptime candidatesOf: anytype,
    terms: anytype,
    low: []const u16,
    room: [*]Match,
) usize {
    var count: usize = 0;
    var start: usize = 0;
    while (start < low.len) : (start += block) {
        var candidates = candidatesOf(terms, low[start..][0..block]);
        const end = count + @popCount(candidates);
        inline for (0..spare) |index| {
            room[count + index] = .{ .position = @intCast(start + @ctz(candidates)), .ordinal = 0 };
            candidates &= candidates -% 1;
        }
        while (candidates != 0) : (candidates &= candidates - 1) {
            count += 1;
            room[count + spare - 1] = .{ .position = @intCast(start + @ctz(candidates)), .ordinal = 0 };
        }
        count = end;
    }
    return count;
}

fn spreadOf(arena: Allocator, hashes: []const u32) Allocator.Error![]const Block {
    const spread = try arena.alloc(Block, hashes.len);
    for (spread, hashes) |*value, hash| value.* = @splat(@truncate(hash));
    return spread;
}

fn filterOf(arena: Allocator, hashes: []const u32) Allocator.Error!*const Filter {
    const filter = try arena.create(Filter);
    filter.* = @splat(false);
    for (hashes) |hash| filter[hash % filter.len] = true;
    return filter;
}

/// Which of a block could be a term's, one bit each: those that have its low half.
fn compared(spread: []const Block, halves: *const [block]u16) u32 {
    const all: Block = @splat(std.math.maxInt(u16));
    const none: Block = @splat(0);
    const values: Block = halves.*;
    var same = none;
    for (spread) |*term| same |= @select(u16, values == term.*, all, none);
    return @bitCast(same != none);
}

/// Which of a block could be a term's: those that have its lowest bits.
fn lookedUp(filter: *const Filter, halves: *const [block]u16) u32 {
    var candidates: u32 = 0;
    inline for (halves, 0..) |half, place| {
        candidates |= @as(u32, @intFromBool(filter[half % filter.len])) << place;
    }
    return candidates;
}

const testing = std.testing;

/// The oracle: one hash after the other.
fn findOneByOne(query: *const Query, hashes: []const u32, matches: *std.ArrayList(Match)) void {
    for (hashes, 0..) |hash, place| {
        const ordinal = query.find(hash) orelse continue;
        matches.appendAssumeCapacity(.{ .position = @intCast(place), .ordinal = ordinal });
    }
}

fn expectBothWays(arena: Allocator, query: *const Query, hashes: []const u32) !void {
    const padded = std.mem.alignForward(usize, hashes.len, block);
    const halves = try arena.alloc(u16, 2 * padded);
    @memset(halves, 0);
    const low, const high = .{ halves[0..padded], halves[padded..] };
    for (hashes, low[0..hashes.len], high[0..hashes.len]) |hash, *l, *h| {
        l.*, h.* = .{ @truncate(hash), @intCast(hash >> 16) };
    }
    var expected: std.ArrayList(Match) = try .initCapacity(arena, padded);
    findOneByOne(query, hashes, &expected);
    for ([_]Finder{
        .{ .query = query, .way = .{ .compare = try spreadOf(arena, query.hashes) } },
        .{ .query = query, .way = .{ .look_up = try filterOf(arena, query.hashes) } },
    }) |finder| {
        var found: std.ArrayList(Match) = try .initCapacity(arena, padded + spare);
        finder.find(low, high, &found);
        try testing.expectEqualSlices(Match, expected.items, found.items);
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
