//! Memory that calls are lent: each room is exactly as long as its length says, at any alignment,
//! and what is written or read past its end does not stay unseen. Alone, a room ends at a page that
//! nobody may touch; with a libc, where valgrind watches, it is malloc's. It must never lend memory
//! that is longer than asked for.

const builtin = @import("builtin");
const std = @import("std");
const page = std.heap.page_size_max;

/// Of one room, and of how many there are at once.
pub const max_bytes = 1 << 16;
const max_rooms = 48;

/// What stands around a room, and in one that was not written to.
const canary = 0x5A;
pub const blank = 0xA5;
const margin = 8;

pub const Room = struct {
    bytes: []u8,
    /// After it, before the page that nobody may touch.
    shift: usize,

    pub fn isBlank(room: Room) bool {
        return std.mem.allEqual(u8, room.bytes, blank);
    }

    /// The value at an index, as if the room held nothing else.
    pub fn number(room: Room, T: type, index: usize) T {
        return std.mem.bytesToValue(T, room.bytes[index * @sizeOf(T) ..][0..@sizeOf(T)]);
    }
};

/// Every promise of the header is held by this.
pub fn expect(is_so: bool, comptime otherwise: []const u8) void {
    if (!is_so) @panic(otherwise);
}

pub const Rooms = struct {
    memory: []u8,
    lent: [max_rooms]Room = undefined,
    count: usize = 0,

    const stride = max_bytes + 2 * page;

    pub fn init() !Rooms {
        if (builtin.link_libc) return .{ .memory = &.{} };
        const allocator = std.heap.page_allocator;
        const memory = try allocator.alignedAlloc(u8, .fromByteUnits(page), max_rooms * stride);
        for (0..max_rooms) |index| {
            const guard = memory[(index + 1) * stride - page ..][0..page];
            if (std.os.linux.errno(std.os.linux.mprotect(guard.ptr, page, .{})) != .SUCCESS) {
                return error.OutOfMemory;
            }
        }
        return .{ .memory = memory };
    }

    /// `shift` moves it off its alignment, 0 to 7 bytes.
    pub fn take(rooms: *Rooms, byte_count: usize, shift: usize) Room {
        std.debug.assert(byte_count <= max_bytes and shift < margin);
        const room: Room = .{ .shift = shift, .bytes = if (builtin.link_libc)
            (std.heap.c_allocator.alloc(u8, byte_count) catch unreachable)
        else bytes: {
            const end = (rooms.count + 1) * stride - page - shift;
            @memset(rooms.memory[end - byte_count - margin ..][0..margin], canary);
            @memset(rooms.memory[end..][0..shift], canary);
            break :bytes rooms.memory[end - byte_count .. end];
        } };
        rooms.lent[rooms.count] = room;
        rooms.count += 1;
        return room;
    }

    /// Whether nothing around the rooms was written to; takes them all back.
    pub fn reset(rooms: *Rooms) bool {
        defer rooms.count = 0;
        if (builtin.link_libc) {
            for (rooms.lent[0..rooms.count]) |room| std.heap.c_allocator.free(room.bytes);
            return true;
        }
        for (rooms.lent[0..rooms.count]) |room| {
            const before = (room.bytes.ptr - margin)[0..margin];
            const after = (room.bytes.ptr + room.bytes.len)[0..room.shift];
            if (!std.mem.allEqual(u8, before, canary)) return false;
            if (!std.mem.allEqual(u8, after, canary)) return false;
        }
        return true;
    }
};
