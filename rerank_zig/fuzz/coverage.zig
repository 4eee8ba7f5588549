//! Which edges of the library's code the calls went through, and how often, as the compiler counts
//! it (SanitizerCoverage, inline 8-bit counters). An input is worth keeping that went through an
//! edge for the first time, or as often as none before (by powers of two, after AFL).

const std = @import("std");

// Where the linker puts the counters; nowhere, in a program without.
const first_counter = @extern([*]u8, .{ .name = "__start___sancov_cntrs", .linkage = .weak });
const counters_end = @extern([*]u8, .{ .name = "__stop___sancov_cntrs", .linkage = .weak });

// What else the instrumented code asks for. Nobody calls the functions: a program of Zig alone runs
// no constructors.
export threadlocal var __sancov_lowest_stack: usize = std.math.maxInt(usize);
export fn __sanitizer_cov_8bit_counters_init(_: usize, _: usize) void {}
export fn __sanitizer_cov_pcs_init(_: usize, _: usize) void {}
export fn __sanitizer_cov_trace_pc_indir(_: usize) void {}

fn counted() []u8 {
    const first = first_counter orelse return &.{};
    return first[0 .. counters_end.? - first];
}

pub const Coverage = struct {
    /// By edge, a bit for each power of two that was counted.
    seen: []u8,

    const width = 32;

    pub const Novelty = enum { edges, counts };

    pub fn init(allocator: std.mem.Allocator) !Coverage {
        const seen = try allocator.alloc(u8, counted().len);
        @memset(seen, 0);
        return .{ .seen = seen };
    }

    /// Nothing was seen.
    pub fn clear(coverage: *Coverage) void {
        @memset(coverage.seen, 0);
    }

    /// Nothing was counted.
    pub fn restart() void {
        @memset(counted(), 0);
    }

    /// Whether the calls since the last time did anything new. Counts anew from here.
    pub fn isNew(coverage: *Coverage, novelty: Novelty) bool {
        const counters = counted();
        var found = false;
        var start: usize = 0;
        while (start < counters.len) : (start += width) {
            const end = @min(start + width, counters.len);
            const counts = counters[start..end];
            if (counts.len == width) {
                const vector: @Vector(width, u8) = counts[0..width].*;
                if (@reduce(.Max, vector) == 0) continue;
            }
            for (counts, coverage.seen[start..end]) |*count, *seen| {
                const bit = if (novelty == .edges) @min(count.*, 1) else bitOf(count.*);
                found = found or seen.* & bit != bit;
                seen.* |= bit;
                count.* = 0;
            }
        }
        return found;
    }

    fn bitOf(count: u8) u8 {
        return if (count == 0) 0 else @as(u8, 1) << @intCast(std.math.log2_int(u8, count));
    }

    pub fn edgeCount(coverage: *const Coverage) usize {
        return coverage.seen.len - std.mem.countScalar(u8, coverage.seen, 0);
    }
};
