//! Where a query's terms stand in candidates: the form that scoring reads, whichever way the terms
//! were found. Pure; memory comes from the caller's arena.

const std = @import("std");
const Allocator = std.mem.Allocator;
const unfilled = @import("unfilled.zig").unfilled;

/// A term of the query at a word of a field. Matches ascend by position; at one position the whole
/// word stands before its parts, and those before the compound that begins there. A word whose
/// parts repeat a term has one match for each of them.
pub const Match = extern struct { position: u32, ordinal: u16, reserved: u16 = 0 };

/// A title or a text: the count of its words, stop words too, and the query's terms in it.
pub const Field = struct { length: u32, matches: []const Match };

pub const Candidate = struct { title: Field, text: Field };

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

/// Gathers candidates in one list of matches that grows, so that none allocates for itself. For
/// each candidate: append the title's matches, `end` it, then the same with the text.
pub const Gathering = struct {
    const End = struct { length: u32, match: usize };

    matches: std.ArrayList(Match) = .empty,
    ends: std.ArrayList(End) = .empty,

    /// As many as a candidate of a kilobyte seldom exceeds; more of them grow the list.
    const likely_matches = 32;

    pub fn init(arena: Allocator, candidate_count: usize) Allocator.Error!Gathering {
        return .{
            .matches = .initBuffer(try unfilled(arena, Match, likely_matches * candidate_count)),
            .ends = .initBuffer(try unfilled(arena, End, 2 * candidate_count)),
        };
    }

    /// Ends a field of `length` words.
    pub fn end(gathering: *Gathering, length: u32) void {
        gathering.ends.appendAssumeCapacity(.{
            .length = length,
            .match = gathering.matches.items.len,
        });
    }

    /// All candidates; nothing may be appended after.
    pub fn candidates(gathering: *const Gathering, arena: Allocator) Allocator.Error![]Candidate {
        const ends = gathering.ends.items;
        const found = try unfilled(arena, Candidate, ends.len / 2);
        var start: usize = 0;
        for (found, 0..) |*candidate, index| {
            const title, const text = .{ ends[2 * index], ends[2 * index + 1] };
            const matches = gathering.matches.items;
            candidate.* = .{
                .title = .{ .length = title.length, .matches = matches[start..title.match] },
                .text = .{ .length = text.length, .matches = matches[title.match..text.match] },
            };
            start = text.match;
        }
        return found;
    }
};

test "candidates share one list" {
    var arena_state = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    var gathering = try Gathering.init(arena, 2);
    gathering.end(0);
    try gathering.matches.append(arena, .{ .position = 3, .ordinal = 1 });
    gathering.end(5);
    try gathering.matches.append(arena, .{ .position = 0, .ordinal = 0 });
    gathering.end(1);
    gathering.end(7);

    const candidates = try gathering.candidates(arena);
    try std.testing.expectEqual(2, candidates.len);
    try std.testing.expectEqual(0, candidates[0].title.matches.len);
    try std.testing.expectEqual(5, candidates[0].text.length);
    try std.testing.expectEqualSlices(
        Match,
        &.{.{ .position = 3, .ordinal = 1 }},
        candidates[0].text.matches,
    );
    try std.testing.expectEqual(0, candidates[1].title.matches[0].position);
    try std.testing.expectEqual(0, candidates[1].text.matches.len);
    try std.testing.expectEqual(7, candidates[1].text.length);
}
