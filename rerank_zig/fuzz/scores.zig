//! Six columns for scores, each in a room of its own, and what must hold of them. It panics where
//! something does not.

const std = @import("std");
const c = @import("header");
const Arguments = @import("arguments.zig").Arguments;
const Room = @import("rooms.zig").Room;
const expect = @import("rooms.zig").expect;

pub const Scores = struct {
    given: c.sluice_scores,
    columns: [6]Room,

    const marker = 77;
    /// What a sum of parts may differ by from the whole.
    const rounding = 1e-6;

    pub fn init(arguments: *Arguments, count: usize) Scores {
        var scores: Scores = undefined;
        scores.given.capacity = arguments.capacity(count);
        scores.given.alpha = marker;
        scores.given.chunk_count = marker;
        const pointers = .{ "fused", "dense", "lexical_raw", "lexical", "title", "proximity" };
        inline for (pointers, &scores.columns) |name, *column| {
            const byte_count: usize = @intCast(4 * scores.given.capacity);
            column.* = arguments.output(&@field(scores.given, name), byte_count);
        }
        return scores;
    }

    pub fn expectBlank(scores: *const Scores) void {
        for (scores.columns) |column| expect(column.isBlank(), "scores were written, but refused");
        const is_same = scores.given.alpha == marker and scores.given.chunk_count == marker;
        expect(is_same, "alpha or count was written, but refused");
    }

    pub fn expectSound(scores: *const Scores, count: usize) void {
        expect(scores.given.alpha >= 0 and scores.given.alpha <= 1, "alpha out of range");
        for (0..count) |index| {
            inline for (.{ 0, 1, 3 }) |place| {
                const share = scores.columns[place].number(f32, index);
                expect(share >= 0 and share <= 1, "a share out of range");
            }
            const words = scores.columns[2].number(f32, index);
            const title = scores.columns[4].number(f32, index);
            const proximity = scores.columns[5].number(f32, index);
            expect(std.math.isFinite(words) and words >= 0, "a score of words is no number");
            const most = words * (1 + rounding);
            const least = -words * rounding;
            expect(title >= least and title <= most, "the title adds more than there is");
            expect(proximity >= 0 and proximity <= most, "proximity adds more than there is");
        }
        for (scores.columns) |column| {
            const rest: Room = .{ .bytes = column.bytes[4 * count ..], .shift = 0 };
            expect(rest.isBlank(), "more scores than candidates");
        }
    }
};
