//! Brings two columns of scores to one scale and mixes them. Pure, in place, without allocation.
//!
//! Convex combination and both normalisations after Bruch, Gai and Ingber, "An Analysis of Fusion
//! Functions for Hybrid Retrieval" (ACM TOIS 2023): MM scales between the least and the greatest
//! score at hand; TM2C2 replaces the least by the least that the function can give.
//!
//! The share of meaning may adapt to the query: alpha = D / (D + W), where D is how far the
//! similarities lie apart (as the normalisation takes them) and W how far the words' scores do, in
//! the unit of a similarity: `word_unit` / ln(N)² of one. That is the same order as similarity +
//! word_unit / ln(N)² · lexical gives. So meaning leads where no rare word of the query is found,
//! or all candidates hold the same ones, and words lead where few hold rare ones. The square makes
//! words count less in a larger collection N, where more chunks hold them by chance.

const std = @import("std");

pub const Normalisation = enum { min_max, theoretical };

/// The least values that the two functions can give, for theoretical normalisation.
pub const cosine_minimum: f64 = -1;
pub const lexical_minimum: f64 = 0;

/// What a score of 1 by words is worth in cosine, but for the size of the collection: chosen on
/// judged collections, see docs/RANKING.md.
const word_unit: f64 = 1.1;
/// Smaller collections count as this large.
const least_collection = 10;

/// A column whose spread is within this share of its greatest magnitude says nothing: its
/// differences are rounding, and scaling them up to 0 and 1 would rank by noise.
const constant_spread: f64 = 1e-6;

/// Maps the column into [0, 1]; a constant column (min-max), or one that does not rise above its
/// `minimum` (theoretical), becomes zeros. Returns how far apart 0 and 1 were, 0 for such a column.
pub fn normalise(column: []f64, normalisation: Normalisation, minimum: f64) f64 {
    if (column.len == 0) return 0;
    const least, const greatest = std.mem.minMax(f64, column);
    const low, const is_constant = switch (normalisation) {
        .min_max => .{
            least,
            greatest - least <= constant_spread * @max(@abs(least), @abs(greatest)),
        },
        .theoretical => .{ minimum, greatest <= minimum },
    };
    if (is_constant) {
        @memset(column, 0);
        return 0;
    }
    // Rounding can put a cosine a little below -1.
    for (column) |*score| score.* = @max(0, (score.* - low) / (greatest - low));
    return greatest - low;
}

/// The share of meaning for columns that lie so far apart, in a collection of so many chunks.
pub fn adapted(dense_spread: f64, lexical_spread: f64, chunk_count: u64) f64 {
    const size: f64 = @floatFromInt(@max(least_collection, chunk_count));
    const logarithm = @log(size);
    const words = word_unit / (logarithm * logarithm) * lexical_spread;
    return if (dense_spread + words > 0) dense_spread / (dense_spread + words) else 0.5;
}

pub fn fuse(dense: f64, lexical: f64, alpha: f64) f64 {
    return alpha * dense + (1 - alpha) * lexical;
}

const testing = std.testing;

test "min-max" {
    var column = [_]f64{ 2, 4, 3 };
    try testing.expectEqual(2, normalise(&column, .min_max, -1));
    try testing.expectEqualSlices(f64, &.{ 0, 1, 0.5 }, &column);
}

test "theoretical bounds" {
    var dense = [_]f64{ 0.5, -1.0000001, 0 };
    try testing.expectEqual(1.5, normalise(&dense, .theoretical, cosine_minimum));
    try testing.expectEqualSlices(f64, &.{ 1, 0, 1.0 / 1.5 }, &dense);
    var lexical = [_]f64{ 0, 8, 2 };
    try testing.expectEqual(8, normalise(&lexical, .theoretical, lexical_minimum));
    try testing.expectEqualSlices(f64, &.{ 0, 1, 0.25 }, &lexical);
}

test "columns that say nothing become zeros" {
    var same = [_]f64{ 3, 3, 3 };
    try testing.expectEqual(0, normalise(&same, .min_max, 0));
    try testing.expectEqualSlices(f64, &.{ 0, 0, 0 }, &same);
    var rounding = [_]f64{ 0.1 + 0.2, 0.3 };
    try testing.expectEqual(0, normalise(&rounding, .min_max, 0));
    try testing.expectEqualSlices(f64, &.{ 0, 0 }, &rounding);
    var lowest = [_]f64{ -1, -1 };
    try testing.expectEqual(0, normalise(&lowest, .theoretical, cosine_minimum));
    try testing.expectEqualSlices(f64, &.{ 0, 0 }, &lowest);
    var none = [_]f64{};
    try testing.expectEqual(0, normalise(&none, .min_max, 0));
}

test "convex combination" {
    try testing.expectEqual(0.25 * 0.8 + 0.75 * 0.4, fuse(0.8, 0.4, 0.25));
    try testing.expectEqual(0.8, fuse(0.8, 0.4, 1));
}

test "the adapted share orders as similarity plus words" {
    const unit = word_unit / (@log(1000.0) * @log(1000.0));
    const similarities = [_]f64{ 0.7, 0.4, 0.6 };
    const words = [_]f64{ 0, 9, 4 };
    inline for (.{ Normalisation.min_max, Normalisation.theoretical }) |normalisation| {
        var dense = similarities;
        var lexical = words;
        const alpha = adapted(
            normalise(&dense, normalisation, cosine_minimum),
            normalise(&lexical, normalisation, lexical_minimum),
            1000,
        );
        for (0..3) |i| for (0..3) |j| {
            const left = similarities[i] + unit * words[i];
            const right = similarities[j] + unit * words[j];
            const fused_left = fuse(dense[i], lexical[i], alpha);
            try testing.expectEqual(left > right, fused_left > fuse(dense[j], lexical[j], alpha));
        };
    }
}

test "where one side says nothing the other leads" {
    try testing.expectEqual(1, adapted(0.3, 0, 1000));
    try testing.expectEqual(0, adapted(0, 5, 1000));
    try testing.expectEqual(0.5, adapted(0, 0, 1000));
    try testing.expect(adapted(0.3, 5, 1_000_000) > adapted(0.3, 5, 1000));
    try testing.expectEqual(adapted(0.3, 5, 1), adapted(0.3, 5, 10));
}
