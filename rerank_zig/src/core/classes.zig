//! Classes of bytes, 64 at a time: bit i of a mask speaks of byte i of the block. Pure; every
//! function has a scalar twin, which the tests hold it against.

const std = @import("std");

pub const block_len = 64;

pub const Block = struct {
    lower: u64,
    upper: u64,
    digit: u64,
    non_ascii: u64,

    pub fn of(bytes: *const [block_len]u8) Block {
        const vector: Vector = bytes.*;
        return .{
            .lower = within(vector, 'a', 'z'),
            .upper = within(vector, 'A', 'Z'),
            .digit = within(vector, '0', '9'),
            .non_ascii = within(vector, 0x80, 0xFF),
        };
    }

    fn ofScalar(bytes: *const [block_len]u8) Block {
        var block: Block = .{ .lower = 0, .upper = 0, .digit = 0, .non_ascii = 0 };
        for (bytes, 0..) |byte, index| {
            const bit = @as(u64, 1) << @intCast(index);
            switch (byte) {
                'a'...'z' => block.lower |= bit,
                'A'...'Z' => block.upper |= bit,
                '0'...'9' => block.digit |= bit,
                0x80...0xFF => block.non_ascii |= bit,
                else => {},
            }
        }
        return block;
    }
};

const Vector = @Vector(block_len, u8);

inline fn within(bytes: Vector, comptime first: u8, comptime last: u8) u64 {
    const from_first = bytes -% @as(Vector, @splat(first));
    return @bitCast(from_first <= @as(Vector, @splat(last - first)));
}

/// Where words and the parts of identifiers begin, block after block of one text.
pub const Borders = struct {
    /// What the last byte of the block before was, as bit 0; nothing at the start of a text.
    word: u64 = 0,
    lower: u64 = 0,
    upper: u64 = 0,
    digit: u64 = 0,

    pub const Starts = struct { words: u64, parts: u64 };

    /// `words` says which bytes belong to words, those beyond ASCII included; `following` is the
    /// byte after the block, 0 at the end. Parts that begin with their word are not in `parts`; all
    /// others of ASCII words are.
    pub fn next(borders: *Borders, block: Block, words: u64, following: u8) Starts {
        const lower_before = block.lower << 1 | borders.lower;
        const upper_before = block.upper << 1 | borders.upper;
        const digit_before = block.digit << 1 | borders.digit;
        const lower_after = block.lower >> 1 |
            @as(u64, @intFromBool(std.ascii.isLower(following))) << (block_len - 1);
        const starts: Starts = .{
            .words = words & ~(words << 1 | borders.word),
            .parts = (block.upper & lower_before) |
                (block.upper & upper_before & lower_after) |
                (block.digit & (lower_before | upper_before)) |
                ((block.lower | block.upper) & digit_before),
        };
        borders.* = .{
            .word = words >> (block_len - 1),
            .lower = block.lower >> (block_len - 1),
            .upper = block.upper >> (block_len - 1),
            .digit = block.digit >> (block_len - 1),
        };
        return starts;
    }
};

const testing = std.testing;

test "classes of every byte at every place" {
    var bytes: [block_len]u8 = @splat(' ');
    for (0..block_len) |place| {
        for (0..256) |byte| {
            bytes[place] = @intCast(byte);
            try testing.expectEqual(Block.ofScalar(&bytes), Block.of(&bytes));
        }
        bytes[place] = "aZ0.\xC3"[place % 5];
    }
}

test "borders of random bytes, across blocks" {
    var random_state = std.Random.DefaultPrng.init(1);
    const random = random_state.random();
    var text: [4 * block_len]u8 = undefined;
    for (0..500) |_| {
        for (&text) |*byte| byte.* = "abcABC01 ."[random.uintLessThan(usize, 10)];
        var borders: Borders = .{};
        for (0..4) |number| {
            const start = number * block_len;
            const block = Block.of(text[start..][0..block_len]);
            const following = if (number == 3) 0 else text[start + block_len];
            const words = block.lower | block.upper | block.digit;
            const starts = borders.next(block, words, following);
            for (0..block_len) |place| {
                const bit = @as(u64, 1) << @intCast(place);
                const begins_word, const begins_part = beginsScalar(&text, start + place);
                try testing.expectEqual(begins_word, starts.words & bit != 0);
                try testing.expectEqual(begins_part, starts.parts & bit != 0);
            }
        }
    }
}

fn beginsScalar(text: []const u8, index: usize) struct { bool, bool } {
    const isUpper, const isLower, const isDigit =
        .{ std.ascii.isUpper, std.ascii.isLower, std.ascii.isDigit };
    const byte = text[index];
    const before = if (index == 0) 0 else text[index - 1];
    const after = if (index + 1 == text.len) 0 else text[index + 1];
    const joins = std.ascii.isAlphanumeric(before) and std.ascii.isAlphanumeric(byte);
    const begins_part = joins and ((isUpper(byte) and isLower(before)) or
        (isUpper(byte) and isUpper(before) and isLower(after)) or
        isDigit(byte) != isDigit(before));
    return .{ std.ascii.isAlphanumeric(byte) and !std.ascii.isAlphanumeric(before), begins_part };
}
