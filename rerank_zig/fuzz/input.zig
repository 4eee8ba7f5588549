//! Reads a program of calls out of any bytes: numbers from their end backwards, texts out of all of
//! them. So a file of plain text is an input, and bytes put at its end change what is done with it.
//! It must never run out: what is not there is 0, and reads as the end of the program.

const std = @import("std");

/// Texts that random bytes hardly ever come to.
const phrases = [_][]const u8{
    "the of and is",
    "NN-HA-42 java.io.IOException",
    "HTTPServer2Node parseURLs",
    "x" ** 63 ++ "yz",
    "a1_" ** 15 ++ "b2",
    "a1_" ** 16 ++ "b2",
    "running runner's skies generously " ** 4,
    "\u{130}\u{2c65}\u{23a}\u{1e9e}",
    "Ⱥ" ** 33,
    "e\u{301}\u{301} 語 \u{10ffff} \u{660}",
    "\xC0\x80\xED\xA0\x80\xF4\x90\x80\x80\xFF",
    " " ** 64,
    "x " ** 32,
    "-_./:@#\\" ** 8,
    ("y" ** 120 ++ "1_") ** 3,
};

pub const Input = struct {
    pool: []const u8,
    /// Numbers are read from the end of it.
    rest: []const u8,
    /// Where the next text begins.
    cursor: usize = 0,
    /// How many calls there may be, and how many bytes of text in all of them.
    max_calls: usize,
    budget: usize,
    is_great: bool,

    /// The last byte of inputs of long and many texts. There should be few of them among millions.
    const great = 0xFF;

    pub fn init(bytes: []const u8) Input {
        const size = if (bytes.len > 0) bytes[bytes.len - 1] else 0;
        return .{
            .pool = bytes,
            .rest = bytes[0..bytes.len -| 1],
            .max_calls = if (size & 7 == 7) 6 else 1,
            .is_great = size == great,
            .budget = if (size == great) 1 << 14 else 192,
        };
    }

    /// Makes it an input of few and short texts.
    pub fn shrink(bytes: []u8) void {
        if (bytes.len > 0 and bytes[bytes.len - 1] == great) bytes[bytes.len - 1] &= 0xF7;
    }

    pub fn isEmpty(input: *const Input) bool {
        return input.rest.len == 0;
    }

    pub fn byte(input: *Input) u8 {
        if (input.rest.len == 0) return 0;
        defer input.rest.len -= 1;
        return input.rest[input.rest.len - 1];
    }

    pub fn number(input: *Input, T: type) T {
        var bytes: [@sizeOf(T)]u8 = undefined;
        for (&bytes) |*value| value.* = input.byte();
        return @bitCast(bytes);
    }

    /// True for few of the bytes, not for 0.
    pub fn seldom(input: *Input) bool {
        return input.byte() >= 0xF0;
    }

    /// The next of the texts, written to `room` and at most as long.
    pub fn text(input: *Input, room: []u8) []const u8 {
        const bytes = input.nextText(room[0..@min(room.len, input.budget)]);
        input.budget -= bytes.len;
        return bytes;
    }

    fn nextText(input: *Input, room: []u8) []const u8 {
        const kind = input.byte();
        const max: usize = switch (kind) {
            0...0xBF => input.byte() >> 2,
            0xC0...0xCF => {
                const phrase = phrases[input.byte() % phrases.len];
                const len = @min(phrase.len, room.len);
                @memcpy(room[0..len], phrase[0..len]);
                return room[0..len];
            },
            // Longer than any vector, now and then longer than a page.
            0xD0...0xFC => input.byte(),
            else => @as(usize, input.byte()) * 32,
        };
        if (input.pool.len == 0) return "";
        const len = @min(max, room.len);
        var filled: usize = 0;
        while (filled < len) {
            const part = @min(len - filled, input.pool.len - input.cursor);
            @memcpy(room[filled..][0..part], input.pool[input.cursor..][0..part]);
            filled += part;
            input.cursor = (input.cursor + part) % input.pool.len;
        }
        return room[0..len];
    }

    pub const floats = [_]f64{
        0,
        -0.0,
        1,
        -1,
        0.5,
        1.2,
        1000,
        1000.0000001,
        5e-324,
        1e300,
        std.math.nan(f64),
        std.math.inf(f64),
        -std.math.inf(f64),
    };

    /// Any at all.
    pub fn float(input: *Input) f64 {
        const kind = input.byte();
        return if (kind < 0xC0) floats[kind % floats.len] else input.number(f64);
    }
};
