//! Makes new inputs out of kept ones, by a seed alone: the same seed and the same inputs give the
//! same ones again.

const std = @import("std");
const Input = @import("input.zig").Input;

pub const max_input_bytes = 1024;

const lengths = [_]u32{
    0,  1,  15,  16,  17,      31,      32,          33, 63,
    64, 65, 255, 256, 1 << 16, 1 << 31, 0xFFFF_FFFF,
};
const pieces = [_][]const u8{
    "NN-HA-42",     "a1_b2",   "IOException",  "fooBar9", " the ", ".",    "\n",
    "É",
    "\u{301}",
    "語",
    "\xED\xA0\x80", "\xC3",    "\xF0\x9F\x98", "\x00",
    "²",
    "\u{130}",      "x" ** 70, " " ** 32,      "running", "-",     "/a:1", "#",
    "@",            "\\",
};

/// Writes a change of `parent`, perhaps with a part of `other`, to `room`; at most its length.
pub fn mutate(
    random: std.Random,
    parent: []const u8,
    other: []const u8,
    room: *[max_input_bytes]u8,
) []u8 {
    var len: usize = @min(parent.len, room.len);
    @memcpy(room[0..len], parent[0..len]);
    for (0..@as(usize, 1) << random.uintLessThan(u3, 4)) |_| {
        const place = random.uintAtMost(usize, len);
        var bytes: [8]u8 = undefined;
        switch (random.uintLessThan(u8, 12)) {
            0 => if (place < len) {
                room[place] ^= @as(u8, 1) << random.int(u3);
            },
            1 => if (place < len) {
                room[place] = random.int(u8);
            },
            2 => if (place < len) {
                room[place] +%= random.uintLessThan(u8, 9) -% 4;
            },
            3 => len = remove(room, len, place, 1 + random.uintLessThan(usize, 16)),
            4 => {
                random.bytes(&bytes);
                len = insert(room, len, place, bytes[0 .. 1 + random.uintLessThan(usize, 8)]);
            },
            5 => len = insert(room, len, place, pieces[random.uintLessThan(usize, pieces.len)]),
            6 => len = insert(room, len, place, part(random, other)),
            7 => {
                const copied = part(random, other);
                const count = @min(copied.len, len - place);
                @memcpy(room[place..][0..count], copied[0..count]);
            },
            8 => {
                const length = lengths[random.uintLessThan(usize, lengths.len)];
                std.mem.writeInt(u32, bytes[0..4], length, .big);
                len = overwrite(room, len, place, bytes[0..4]);
            },
            9 => {
                const float = Input.floats[random.uintLessThan(usize, Input.floats.len)];
                std.mem.writeInt(u64, &bytes, @bitCast(float), .big);
                len = overwrite(room, len, place, &bytes);
            },
            // Calls are read from the end: more of them, or some of another input's.
            10 => {
                random.bytes(&bytes);
                len = insert(room, len, len, &bytes);
            },
            else => len = insert(room, len, len, other[other.len - part(random, other).len ..]),
        }
    }
    return room[0..len];
}

fn part(random: std.Random, of: []const u8) []const u8 {
    const start = random.uintAtMost(usize, of.len);
    return of[start..][0..@min(random.uintAtMost(usize, of.len - start), 64)];
}

fn remove(room: []u8, len: usize, place: usize, wanted: usize) usize {
    const count = @min(wanted, len - place);
    std.mem.copyForwards(u8, room[place..], room[place + count .. len]);
    return len - count;
}

fn insert(room: []u8, len: usize, place: usize, bytes: []const u8) usize {
    const count = @min(bytes.len, room.len - len);
    std.mem.copyBackwards(u8, room[place + count ..], room[place..len]);
    @memcpy(room[place..][0..count], bytes[0..count]);
    return len + count;
}

fn overwrite(room: []u8, len: usize, place: usize, bytes: []const u8) usize {
    const count = @min(bytes.len, room.len - place);
    @memcpy(room[place..][0..count], bytes[0..count]);
    return @max(len, place + count);
}
