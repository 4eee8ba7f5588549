//! Memory for the length of a call. To map fresh pages for every call would cost more than to score
//! hundreds of chunks, so a few arenas are kept for the next calls, each up to a bound. It must
//! never make a call wait for another one's arena.

const builtin = @import("builtin");
const std = @import("std");
const ArenaAllocator = std.heap.ArenaAllocator;

/// Built with Linux's libc, as for valgrind, every call has memory of its own from malloc, so that
/// what is read beyond it, before it is written or after it was given back is seen.
const is_watched = builtin.link_libc and builtin.os.tag == .linux;
pub const backing = if (is_watched) std.heap.c_allocator else @import("pages.zig").allocator;
const max_kept_arenas = 16;
const max_kept_bytes = if (is_watched) 0 else 1 << 19;

const Kept = struct {
    is_lent: std.atomic.Value(bool) = .init(false),
    arena: ArenaAllocator = .init(backing),
};

var all_kept: [max_kept_arenas]Kept = @splat(.{});

pub const Scratch = struct {
    lent: ?*Kept,
    /// Used where all kept ones are lent.
    own: ArenaAllocator = .init(backing),

    pub fn init() Scratch {
        for (&all_kept) |*kept| {
            if (!kept.is_lent.swap(true, .acquire)) return .{ .lent = kept };
        }
        return .{ .lent = null };
    }

    pub fn deinit(scratch: *Scratch) void {
        if (scratch.lent) |kept| {
            _ = kept.arena.reset(.{ .retain_with_limit = max_kept_bytes });
            kept.is_lent.store(false, .release);
        }
        scratch.own.deinit();
    }

    pub fn allocator(scratch: *Scratch) std.mem.Allocator {
        return if (scratch.lent) |kept| kept.arena.allocator() else scratch.own.allocator();
    }
};

test {
    _ = @import("pages.zig");
}

test "more calls at once than arenas are kept" {
    var scratches: [max_kept_arenas + 2]Scratch = undefined;
    for (&scratches, 0..) |*scratch, index| {
        scratch.* = .init();
        const bytes = try scratch.allocator().alloc(u8, 2 * max_kept_bytes);
        @memset(bytes, @intCast(index));
        try std.testing.expectEqual(index >= max_kept_arenas, scratch.lent == null);
    }
    for (&scratches) |*scratch| scratch.deinit();
    for (&all_kept) |*kept| try std.testing.expect(kept.arena.queryCapacity() <= max_kept_bytes);
    var next: Scratch = .init();
    defer next.deinit();
    try std.testing.expect(next.lent != null);
}
