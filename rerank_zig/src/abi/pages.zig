//! Memory from the system, page by page. It must never take a refusal of the system for impossible,
//! as std's own functions do: a process at its limit of mappings (vm.max_map_count) gets none, and
//! cannot even give back a part of one.

const builtin = @import("builtin");
const std = @import("std");
const Alignment = std.mem.Alignment;
const page_size_min = std.heap.page_size_min;
const system = std.posix.system;

pub const Pages = []align(page_size_min) u8;

/// Zeros; taken from the machine when they are first written to.
pub fn map(byte_count: usize) error{OutOfMemory}!Pages {
    const access: std.posix.PROT = .{ .READ = true, .WRITE = true };
    const kind: std.posix.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const result = system.mmap(null, byte_count, access, kind, -1, 0);
    const address = if (builtin.link_libc) @intFromPtr(result) else result;
    // Errors are the highest addresses, MAP_FAILED among them.
    if (address > std.math.maxInt(usize) - page_size_min) return error.OutOfMemory;
    return @as([*]align(page_size_min) u8, @ptrFromInt(address))[0..byte_count];
}

/// Where the system cannot, the addresses stay taken, but not what stands behind them.
pub fn unmap(pages: Pages) void {
    const failure = std.posix.errno(system.munmap(pages.ptr, pages.len));
    if (failure == .SUCCESS) return;
    std.debug.assert(failure == .NOMEM); // else they were never ours
    if (builtin.os.tag == .linux) {
        _ = std.os.linux.madvise(pages.ptr, pages.len, std.os.linux.MADV.DONTNEED);
    }
}

/// For arenas, which ask for little and great parts.
pub const allocator: std.mem.Allocator = .{
    .ptr = undefined,
    .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free },
};

fn alloc(_: *anyopaque, byte_count: usize, alignment: Alignment, _: usize) ?[*]u8 {
    if (alignment.compare(.gt, .fromByteUnits(page_size_min))) return null;
    const pages = map(byte_count) catch return null;
    return pages.ptr;
}

fn resize(_: *anyopaque, memory: []u8, _: Alignment, byte_count: usize, _: usize) bool {
    return pageCount(memory.len) == pageCount(byte_count);
}

fn remap(_: *anyopaque, memory: []u8, _: Alignment, byte_count: usize, _: usize) ?[*]u8 {
    return if (pageCount(memory.len) == pageCount(byte_count)) memory.ptr else null;
}

fn free(_: *anyopaque, memory: []u8, _: Alignment, _: usize) void {
    unmap(@alignCast(memory));
}

fn pageCount(byte_count: usize) usize {
    return std.mem.alignForward(usize, byte_count, page_size_min) / page_size_min;
}

test "pages are zeros, and no count of them is too great to ask for" {
    const pages = try map(3);
    defer unmap(pages);
    try std.testing.expectEqualSlices(u8, &.{ 0, 0, 0 }, pages);
    for ([_]usize{ 1 << 60, std.math.maxInt(usize) - 1, std.math.maxInt(usize) }) |byte_count| {
        try std.testing.expectError(error.OutOfMemory, map(byte_count));
    }
    try std.testing.expectEqual(null, allocator.rawAlloc(1 << 60, .@"1", 0));
}

test "what is given back in the middle of others is given back" {
    const bytes = try allocator.alloc(u8, 3 * page_size_min);
    allocator.free(bytes);
    var arena: std.heap.ArenaAllocator = .init(allocator);
    defer arena.deinit();
    for (0..100) |round| @memset(try arena.allocator().alloc(u8, round * 999), 1);
    try std.testing.expect(arena.reset(.{ .retain_with_limit = page_size_min }));
}
