//! Memory as it comes. A checked build fills what an allocator hands out, so that reading it too early
//! shows; where all of it is written at once anyway, that filling is a tenth of the time of scoring.

const std = @import("std");
const Allocator = std.mem.Allocator;

/// Room for `count` values, which the caller writes before it reads them.
pub fn unfilled(arena: Allocator, comptime T: type, count: usize) Allocator.Error![]T {
    if (count == 0) return &.{};
    const byte_count = std.math.mul(usize, count, @sizeOf(T)) catch return error.OutOfMemory;
    const bytes = arena.rawAlloc(byte_count, .of(T), @returnAddress()) orelse
        return error.OutOfMemory;
    return @as([*]T, @ptrCast(@alignCast(bytes)))[0..count];
}

test "room is aligned and separate" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const bytes = try unfilled(arena.allocator(), u8, 3);
    const numbers = try unfilled(arena.allocator(), u64, 5);
    @memset(bytes, 1);
    @memset(numbers, 2);
    try std.testing.expectEqualSlices(u8, &.{ 1, 1, 1 }, bytes);
    try std.testing.expectEqual(0, (try unfilled(arena.allocator(), u64, 0)).len);
    try std.testing.expectError(
        error.OutOfMemory,
        unfilled(arena.allocator(), u64, std.math.maxInt(usize)),
    );
}
