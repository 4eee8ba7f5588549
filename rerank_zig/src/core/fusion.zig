//! Brings two columns of scores to one scale and mixes them. Pure, in place, without allocation.
//!
//! Convex combination and both normalisations after Bruch, Gai and Ingber, "An Analysis of Fusion
//! Functions for Hybrid Retrieval" (ACM TOIS 2023): MM scales between the least and the greatest
//! score at hand; TM2C2 replaces the least by the least that the function can give.

const std = @import("std");

pub const Normalisation = enum { min_max, theoretical };

/// The least values that the two functions can give, for theoretical normalisation.
pub const cosine_minimum: f64 = -1;
pub const bm25_minimum: f64 = 0;

/// A column whose spread is within this share of its greatest magnitude says nothing: its
/// differences are rounding, and scaling them up to 0 and 1 would rank by noise.
const constant_spread: f64 = 1e-6;

/// Maps the column into [0, 1]; a constant column (min-max), or one that does not rise above its
/// `minimum` (theoretical), becomes zeros.
pub fn normalise(column: []f64, normalisation: Normalisation, minimum: f64) void {
    if (column.len == 0) return;
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
        return;
    }
    // Rounding can put a cosine a little below -1.
    for (column) |*score| score.* = @max(0, (score.* - low) / (greatest - low));
}

pub fn fuse(dense: f64, lexical: f64, alpha: f64) f64 {
    return alpha * dense + (1 - alpha) * lexical;
}

const testing = std.testing;

test "min-max" {
    var column = [_]f64{ 2, 4, 3 };
    normalise(&column, .min_max, -1);
    try testing.expectEqualSlices(f64, &.{ 0, 1, 0.5 }, &column);
}

test "theoretical bounds" {
    var dense = [_]f64{ 0.5, -1.0000001, 0 };
    normalise(&dense, .theoretical, cosine_minimum);
    try testing.expectEqualSlices(f64, &.{ 1, 0, 1.0 / 1.5 }, &dense);
    var lexical = [_]f64{ 0, 8, 2 };
    normalise(&lexical, .theoretical, bm25_minimum);
    try testing.expectEqualSlices(f64, &.{ 0, 1, 0.25 }, &lexical);
}

test "columns that say nothing become zeros" {
    var same = [_]f64{ 3, 3, 3 };
    normalise(&same, .min_max, 0);
    try testing.expectEqualSlices(f64, &.{ 0, 0, 0 }, &same);
    var rounding = [_]f64{ 0.1 + 0.2, 0.3 };
    normalise(&rounding, .min_max, 0);
    try testing.expectEqualSlices(f64, &.{ 0, 0 }, &rounding);
    var lowest = [_]f64{ -1, -1 };
    normalise(&lowest, .theoretical, cosine_minimum);
    try testing.expectEqualSlices(f64, &.{ 0, 0 }, &lowest);
    var none = [_]f64{};
    normalise(&none, .min_max, 0);
}

test "convex combination" {
    try testing.expectEqual(0.25 * 0.8 + 0.75 * 0.4, fuse(0.8, 0.4, 0.25));
    try testing.expectEqual(0.8, fuse(0.8, 0.4, 1));
}
