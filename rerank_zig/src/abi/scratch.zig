//! Memory for the length of a call. To map fresh pages for every call would cost more than to score
//! hundreds of chunks, so a few arenas are kept for the next calls, each up to a bound. It must
//! never make a call wait for another one's arena.

const std = @import("std");
const ArenaAllocator = std.heap.ArenaAllocator;

const max_kept_arenas = 16;
const max_kept_bytes = 1 << 19;

const Kept = struct {
    is_lent: std.atomic.Value(bool) = .init(false),
    arena: ArenaAllocator = .init(std.heap.page_allocator),
};

var all_kept: [max_kept_arenas]Kept = @splat(.{});

pub const Scratch = struct {
    lent: ?*Kept,
    /// Used where all kept ones are lent.
    own: ArenaAllocator = .init(std.heap.page_allocator),

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
