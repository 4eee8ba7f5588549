//! What the words of a query say for candidates: BM25F over title and text, and what words that
//! stand near each other add. Pure; scratch comes from the caller's arena, none for a candidate.
//!
//! lexical(D) = Σ over the query's unique terms t of idf(t) · sat(tf(t, D))                    (terms)
//!            + proximity · (Σ over pairs of neighbours in the query of
//!                             min(idf, idf) · sat(count in D / norm(text))                    (phrases)
//!                         + Σ over the terms t of min(1, idf(t)) · sat(near(t, D) / norm(text)))
//!
//! - tf(t, D) = count in the text / norm(text) + title · count in the title / norm(title), with
//!   norm(field) = 1 - b + b · words / average words: BM25F after Robertson and Zaragoza, "The
//!   Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.6;
//! - sat(x) = x · (k1 + 1) / (x + k1);
//! - idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)), as Lucene has it, which is never negative;
//! - neighbours in the query are two words, no stop words, at most 3 positions apart; they count in
//!   D where they stand in that order and distance, after Metzler and Croft, "A Markov Random Field
//!   Model for Term Dependencies" (2005);
//! - near(t, D) adds idf(u) / distance² for every word u of the query, another one than t, whose
//!   match stands next before or after one of t: after Büttcher, Clarke and Lushman, "Term
//!   Proximity Scoring for Ad-Hoc Retrieval on Very Large Text Collections" (2006).
//! A term that the query repeats counts once. Parts and compounds are terms as others, but only
//! whole words have neighbours.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Collection = @import("collection.zig").Collection;
const Found = @import("scan.zig").Found;
const Query = @import("query.zig").Query;
const Tallies = @import("tallies.zig").Tallies;
const unfilled = @import("unfilled.zig").unfilled;

pub const Parameters = struct { k1: f64, b: f64, title: f64, proximity: f64 };

/// A column for the whole score, and what titles and nearness added to it.
pub const Columns = struct { lexical: []f64, title: []f64, proximity: []f64 };

/// Scores every candidate by the query's words. All columns are as long as there are candidates.
pub fn score(
    arena: Allocator,
    query: *const Query,
    found: Found,
    collection: Collection,
    parameters: Parameters,
    columns: Columns,
) Allocator.Error!void {
    const tallies: Tallies = try .init(arena, query, found, collection, parameters.proximity > 0);
    const shares = try unfilled(arena, f64, found.lengths.len);
    const averages = [_]f64{ collection.title_average, collection.text_average };
    for (found.lengths, shares, 0..) |length, *share, field| {
        share.* = shareOf(parameters.b, length, averages[field % 2]);
    }
    const saturation: Saturation = .init(parameters.k1);
    const lexical, const title, const proximity =
        .{ columns.lexical, columns.title, columns.proximity };
    for ([_][]f64{ lexical, title, proximity }) |column| @memset(column, 0);
    for (tallies.of_terms) |tally| {
        const candidate = tally.candidate;
        const idf = tallies.terms[tally.ordinal].idf;
        const title_share, const text_share = shares[2 * candidate ..][0..2].*;
        const in_text = text_share * @as(f64, @floatFromInt(tally.counts[1]));
        const in_title = parameters.title * title_share * @as(f64, @floatFromInt(tally.counts[0]));
        const whole = idf * saturation.of(in_text + in_title);
        lexical[candidate] += whole;
        // Rounding can put the difference a little below 0.
        title[candidate] += @max(0, whole - idf * saturation.of(in_text));
        proximity[candidate] += @min(1, idf) * saturation.of(tally.near * text_share);
    }
    for (tallies.of_pairs.items) |tally| {
        const in_text = shares[2 * tally.candidate + 1] * @as(f64, @floatFromInt(tally.count));
        proximity[tally.candidate] += tally.weight * saturation.of(in_text);
    }
    for (lexical, proximity) |*whole, *part| {
        part.* *= parameters.proximity;
        whole.* += part.*;
    }
}

/// What a word counts in a field, 1 / norm; in an empty one, whose norm may be 0, there is none.
fn shareOf(b: f64, length: u32, average: f64) f64 {
    if (length == 0) return 0;
    return 1 / (1 - b + b * @as(f64, @floatFromInt(length)) / average);
}

const Saturation = struct {
    k1: f64,

    /// Where k1 is 0 the least positive number stands for it, so that nothing gives 0.
    fn init(k1: f64) Saturation {
        return .{ .k1 = @max(k1, std.math.floatMin(f64)) };
    }

    fn of(saturation: Saturation, frequency: f64) f64 {
        return frequency * (saturation.k1 + 1) / (frequency + saturation.k1);
    }
};

const testing = std.testing;
const Match = @import("scan.zig").Match;
const plain: Parameters = .{ .k1 = 1, .b = 0, .title = 3, .proximity = 0 };

/// A word of the query in a field: its position and its ordinal.
const At = struct { u32, u16 };
const TestField = struct { length: u32 = 0, words: []const At = &.{} };
const Scored = struct { lexical: f64, title: f64, proximity: f64 };

/// A candidate's score, with every term in one of ten chunks and ten words a field.
fn scoreOf(
    query_text: []const u8,
    title: TestField,
    text: TestField,
    parameters: Parameters,
) !Scored {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const query = try Query.init(arena, query_text);
    const frequencies = try arena.alloc(u64, query.hashes.len);
    @memset(frequencies, 1);
    // Twice: nothing may be left of the one before.
    var matches: std.ArrayList(Match) = .empty;
    const fields = [_]TestField{ title, text, title, text };
    for (fields, 0..) |field, number| {
        for (field.words) |word| {
            const position, const ordinal = word;
            const match: Match =
                .{ .position = position, .field = @intCast(number), .ordinal = ordinal };
            try matches.append(arena, match);
        }
    }
    const found: Found = .{
        .matches = matches.items,
        .lengths = &.{ title.length, text.length, title.length, text.length },
    };
    var columns: [3][2]f64 = undefined;
    try score(arena, &query, found, .init(10, 100, 100, frequencies), parameters, .{
        .lexical = &columns[0],
        .title = &columns[1],
        .proximity = &columns[2],
    });
    for (columns) |column| try testing.expectEqual(column[0], column[1]);
    return .{ .lexical = columns[0][0], .title = columns[1][0], .proximity = columns[2][0] };
}

const rare = @log(1 + 9.5 / 1.5);

test "a term counts in text and title, saturated together" {
    const scored = try scoreOf(
        "fox",
        .{ .length = 10, .words = &.{.{ 0, 0 }} },
        .{ .length = 10, .words = &.{ .{ 2, 0 }, .{ 9, 0 } } },
        plain,
    );
    try testing.expectApproxEqAbs(rare * 10.0 / 6.0, scored.lexical, 1e-12);
    try testing.expectApproxEqAbs(rare * (10.0 / 6.0 - 4.0 / 3.0), scored.title, 1e-12);
    try testing.expectEqual(0, scored.proximity);
}

test "a longer field counts less" {
    const parameters: Parameters = .{ .k1 = 1, .b = 0.5, .title = 3, .proximity = 0 };
    const text: TestField = .{ .length = 30, .words = &.{.{ 2, 0 }} };
    const scored = try scoreOf("fox", .{}, text, parameters);
    try testing.expectApproxEqAbs(rare * 0.5 * 2 / 1.5, scored.lexical, 1e-12);
}

test "without saturation a term counts once, however often it stands there" {
    const parameters: Parameters = .{ .k1 = 0, .b = 1, .title = 3, .proximity = 1 };
    const text: TestField = .{ .length = 30, .words = &.{ .{ 2, 0 }, .{ 3, 0 }, .{ 9, 0 } } };
    const scored = try scoreOf("fox den", .{}, text, parameters);
    try testing.expectEqual(Scored{ .lexical = rare, .title = 0, .proximity = 0 }, scored);
}

test "neighbours count in their order and distance, nearness in any" {
    const parameters: Parameters = .{ .k1 = 1, .b = 0, .title = 3, .proximity = 0.5 };
    const near = 2 * (1 * 2 * rare / (rare + 1));
    const phrase = rare * 1 * 2 / 2.0;
    const quarter = 2 * ((rare / 4.0) * 2.0 / (rare / 4.0 + 1.0));
    for ([_]struct { []const At, f64 }{
        .{ &.{ .{ 4, 0 }, .{ 5, 1 } }, near + phrase },
        .{ &.{ .{ 4, 1 }, .{ 5, 0 } }, near },
        .{ &.{ .{ 4, 0 }, .{ 6, 1 } }, quarter },
        // At one place, as a word and its part are, and the same word again.
        .{ &.{ .{ 4, 0 }, .{ 4, 1 } }, 0 },
        .{ &.{ .{ 4, 0 }, .{ 5, 0 } }, 0 },
    }) |case| {
        const words, const expected = case;
        const text = try scoreOf("red fox", .{}, .{ .length = 9, .words = words }, parameters);
        try testing.expectApproxEqAbs(0.5 * expected, text.proximity, 1e-12);
        // Titles have no neighbours, neither within them nor in the text that follows.
        const title = try scoreOf("red fox", .{ .length = 9, .words = words }, .{
            .length = 9,
            .words = &.{.{ 6, 1 }},
        }, parameters);
        try testing.expectEqual(0, title.proximity);
    }
}

test "a query without words, and a candidate without any" {
    const scored = try scoreOf("", .{}, .{}, plain);
    try testing.expectEqual(Scored{ .lexical = 0, .title = 0, .proximity = 0 }, scored);
}
