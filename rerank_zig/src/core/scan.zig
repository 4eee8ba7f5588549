//! Where a query's terms stand in candidates: the form that scoring reads, whichever way the terms
//! were found. Pure; memory comes from the caller's arena.

const std = @import("std");
const Allocator = std.mem.Allocator;
const unfilled = @import("unfilled.zig").unfilled;

/// A term of the query at a word of a field. Matches ascend by field, then by position; at one
/// position the whole word stands before its parts, and those before the compound that begins
/// there. A word whose parts repeat a term has one match for each of them.
pub const Match = struct {
    position: u32,
    /// Of candidate i, the title is field 2 * i and the text the next one.
    field: u32,
    ordinal: u16,

    pub fn candidate(match: Match) u32 {
        return match.field / 2;
    }

    pub fn isInText(match: Match) bool {
        return match.field % 2 == 1;
    }
};

/// Texts packed one after the other: text i is bytes[offsets[i]..offsets[i + 1]].
pub const Texts = struct {
    bytes: []const u8,
    offsets: []align(1) const u32,

    pub fn count(texts: Texts) usize {
        return texts.offsets.len - 1;
    }

    pub fn get(texts: Texts, index: usize) []const u8 {
        return texts.bytes[texts.offsets[index]..texts.offsets[index + 1]];
    }
};

/// Gathers what candidates hold in one list of matches that grows, so that none allocates for
/// itself. For each candidate: append the title's matches, `end` it, then the same with the text.
pub const Gathering = struct {
    matches: std.ArrayList(Match) = .empty,
    /// How many words each field has, stop words too.
    lengths: std.ArrayList(u32) = .empty,

    /// As many as a candidate of a kilobyte seldom exceeds; more of them grow the list.
    const likely_matches = 32;

    pub fn init(arena: Allocator, candidate_count: usize) Allocator.Error!Gathering {
        return .{
            .matches = .initBuffer(try unfilled(arena, Match, likely_matches * candidate_count)),
            .lengths = .initBuffer(try unfilled(arena, u32, 2 * candidate_count)),
        };
    }

    /// The field that is being gathered.
    pub fn field(gathering: *const Gathering) u32 {
        return @intCast(gathering.lengths.items.len);
    }

    /// Ends a field of `length` words.
    pub fn end(gathering: *Gathering, length: u32) void {
        gathering.lengths.appendAssumeCapacity(length);
    }

    /// All that was gathered; nothing may be appended after.
    pub fn found(gathering: *const Gathering) Found {
        return .{ .matches = gathering.matches.items, .lengths = gathering.lengths.items };
    }
};

/// What candidates hold: two fields each.
pub const Found = struct {
    matches: []const Match,
    lengths: []const u32,

    pub fn candidateCount(found: Found) usize {
        return found.lengths.len / 2;
    }
};

test "fields are counted as they end" {
    var arena_state = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    var gathering = try Gathering.init(arena, 2);
    for ([_]u32{ 0, 5, 1, 7 }, 0..) |length, field| {
        try std.testing.expectEqual(field, gathering.field());
        const match: Match = .{ .position = 3, .field = gathering.field(), .ordinal = 1 };
        try std.testing.expectEqual(field / 2, match.candidate());
        try std.testing.expectEqual(field % 2 == 1, match.isInText());
        try gathering.matches.append(arena, match);
        gathering.end(length);
    }
    const found = gathering.found();
    try std.testing.expectEqual(2, found.candidateCount());
    try std.testing.expectEqual(4, found.matches.len);
    try std.testing.expectEqualSlices(u32, &.{ 0, 5, 1, 7 }, found.lengths);
}
