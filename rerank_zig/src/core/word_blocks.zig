//! Cuts a text into blocks of up to 64 bytes, each with a mask of its words, and never within a word
//! or a code point: what a block says of its bytes needs nothing of the blocks around it. Words that
//! are long or begin beyond ASCII stand alone, to be read code point by code point: that is what such
//! texts take anyway. Pure, on any bytes. Words are those of tokenizer.zig.

const std = @import("std");
const classes = @import("classes.zig");
const tokenizer_file = @import("tokenizer.zig");
const unicode = @import("unicode.zig");

pub const block_len = classes.block_len;
/// Readable beyond a block, zeros after the end of the text.
pub const reach = 16;
pub const Window = [block_len + reach]u8;

const everything: u64 = std.math.maxInt(u64);

/// What comes next of a text.
pub const Piece = union(enum) { block: Block, alone: Alone };

/// A word that is too long for a block, or begins beyond ASCII. Read it, then `skipTo` its end.
pub const Alone = struct {
    start: usize,
    before: Before,

    /// Whether exactly one joint stands between this word and another one.
    pub fn isJoinedToWordBefore(word: Alone, text: []const u8) bool {
        return word.before.is_word_but_one and tokenizer_file.isJoint(text[word.start - 1]);
    }
};

/// What stands right before a piece.
const Before = packed struct(u2) {
    /// Whether the last byte but one belongs to a word.
    is_word_but_one: bool = false,
    /// Whether the last byte does.
    is_word: bool = false,
};

/// Bit i of a mask speaks of the byte `start + i` of the text.
pub const Block = struct {
    start: usize,
    /// The text from `start` on; valid until the next piece is asked for.
    window: *const Window,
    classes: classes.Block,
    /// Bytes of words that begin, in ASCII, and end here.
    words: u64,
    before: Before,

    /// The bytes at which words begin.
    pub fn starts(block: *const Block) u64 {
        return block.words & ~(block.words << 1);
    }

    /// How long the word is that begins at `place`.
    pub fn wordLen(block: *const Block, place: u6) u7 {
        return @ctz(~(block.words >> place));
    }

    /// Whether exactly one joint stands between the word that begins at `place` and another one.
    pub fn isJoinedToWordBefore(block: *const Block, text: []const u8, place: u6) bool {
        const is_near_word = switch (place) {
            0 => block.before.is_word_but_one,
            1 => block.before.is_word,
            else => block.words >> (place - 2) & 1 != 0,
        };
        return is_near_word and tokenizer_file.isJoint(text[block.start + place - 1]);
    }
};

pub const Blocks = struct {
    text: []const u8,
    /// Where the next piece begins.
    next_start: usize = 0,
    before: Before = .{},
    /// The window of a block at the end of the text. A block points into this.
    last_window: Window = undefined,

    pub fn init(text: []const u8) Blocks {
        return .{ .text = text };
    }

    pub fn next(blocks: *Blocks) ?Piece {
        const start = blocks.next_start;
        const rest = blocks.text[start..];
        if (rest.len == 0) return null;
        const alone: Piece = .{ .alone = .{ .start = start, .before = blocks.before } };
        if (rest[0] >= 0x80 and beginsWord(unicode.decode(rest))) return alone;
        const window = blocks.windowOf(rest);
        const class = classes.Block.of(window[0..block_len]);
        var len: u7 = @intCast(@min(block_len, rest.len));
        var words = class.lower | class.upper | class.digit;
        if (class.non_ascii != 0) words, len = wordsBeyondAscii(rest, class, len);

        // A word that may go on after these bytes is left to the next piece.
        if (len < rest.len) len -= @clz(~(words << @intCast(block_len - len)));
        if (len == 0) return alone;
        words &= everything >> @intCast(block_len - len);
        defer {
            blocks.next_start += len;
            const ends = @as(u66, words) << 2 | @as(u2, @bitCast(blocks.before));
            blocks.before = @bitCast(@as(u2, @truncate(ends >> len)));
        }
        return .{ .block = .{
            .start = start,
            .window = window,
            .classes = class,
            .words = words,
            .before = blocks.before,
        } };
    }

    /// Goes on after the word that stood alone and ends there.
    pub fn skipTo(blocks: *Blocks, end: usize) void {
        std.debug.assert(end >= blocks.next_start + 2);
        blocks.next_start = end;
        blocks.before = .{ .is_word_but_one = true, .is_word = true };
    }

    fn windowOf(blocks: *Blocks, rest: []const u8) *const Window {
        if (rest.len >= blocks.last_window.len) return rest[0..blocks.last_window.len];
        @memcpy(blocks.last_window[0..rest.len], rest);
        @memset(blocks.last_window[rest.len..], 0);
        return &blocks.last_window;
    }
};

/// Which bytes belong to words that begin in ASCII, and how many of the first `len` stand before a
/// word that does not, and before a code point that the block does not hold.
fn wordsBeyondAscii(rest: []const u8, class: classes.Block, len: u7) struct { u64, u7 } {
    var words = class.lower | class.upper | class.digit;
    var others = class.non_ascii;
    while (others != 0) {
        const place: u6 = @intCast(@ctz(others));
        const decoded = unicode.decode(rest[place..]);
        const follows_word = (words << 1) >> place & 1 != 0;
        const begins_word = beginsWord(decoded);
        const is_out = @as(usize, place) + decoded.byte_count > block_len;
        if (is_out or (begins_word and !follows_word)) return .{ words, place };
        const mask = ((@as(u64, 1) << decoded.byte_count) - 1) << place;
        others &= ~mask;
        if (begins_word or (follows_word and isMark(decoded))) words |= mask;
    }
    return .{ words, len };
}

fn beginsWord(decoded: unicode.Decoded) bool {
    return switch (unicode.classify(decoded.code_point orelse return false)) {
        .letter, .digit => true,
        .mark, .separator => false,
    };
}

fn isMark(decoded: unicode.Decoded) bool {
    return unicode.classify(decoded.code_point orelse return false) == .mark;
}

const testing = std.testing;

const Span = struct { usize, usize };

/// The words of a text, code point by code point.
fn wordsScalar(text: []const u8, spans: []Span) []Span {
    var count: usize = 0;
    var at: usize = 0;
    var is_open = false;
    while (at < text.len) {
        const decoded = unicode.decode(text[at..]);
        const class = if (decoded.code_point) |known| unicode.classify(known) else .separator;
        const start = at;
        at += decoded.byte_count;
        if (class == .separator or (class == .mark and !is_open)) {
            is_open = false;
        } else if (is_open) {
            spans[count - 1][1] = at;
        } else {
            is_open = true;
            spans[count] = .{ start, at };
            count += 1;
        }
    }
    return spans[0..count];
}

fn expectWords(text: []const u8) !usize {
    errdefer std.debug.print("{x}\n", .{text});
    var room: [1000]Span = undefined;
    const spans = wordsScalar(text, &room);
    var found: usize = 0;
    var blocks = Blocks.init(text);
    var end: usize = 0;
    while (blocks.next()) |piece| {
        switch (piece) {
            .alone => |word| {
                const start, end = spans[found];
                try testing.expectEqual(start, word.start);
                const is_joined = isJoined(text, spans, found);
                try testing.expectEqual(is_joined, word.isJoinedToWordBefore(text));
                blocks.skipTo(end);
                found += 1;
            },
            .block => |*block| {
                try testing.expectEqual(end, block.start);
                for (block.window, block.start..) |byte, index| {
                    try testing.expectEqual(if (index < text.len) text[index] else 0, byte);
                }
                var starts = block.starts();
                while (starts != 0) : (starts &= starts - 1) {
                    const place: u6 = @intCast(@ctz(starts));
                    const start, const word_end = spans[found];
                    try testing.expectEqual(start, block.start + place);
                    try testing.expectEqual(word_end, start + block.wordLen(place));
                    const is_joined = isJoined(text, spans, found);
                    try testing.expectEqual(is_joined, block.isJoinedToWordBefore(text, place));
                    found += 1;
                }
                try testing.expect(blocks.next_start > end);
                end = blocks.next_start;
            },
        }
    }
    try testing.expectEqual(text.len, end);
    try testing.expectEqual(spans.len, found);
    return found;
}

fn isJoined(text: []const u8, spans: []const Span, number: usize) bool {
    if (number == 0) return false;
    const start = spans[number][0];
    return spans[number - 1][1] + 1 == start and tokenizer_file.isJoint(text[start - 1]);
}

test "words at every place of a block, at every tail length" {
    const words = [_][]const u8{
        "a",
        "é",
        "e\u{301}\u{301}",
        "𐐀",
        "b-é",
        "é-b.c",
        "xé_é-\u{301}é.y",
        "x" ** 61,
        "é" ** 40 ++ ".7",
        "\u{301}y",
        "a.b.c.語",
        "\xE2\x82",
        "y" ** 64 ++ "/z" ** 3,
    };
    var text: [300]u8 = undefined;
    for (words) |word| {
        for (" a-") |filler| {
            @memset(&text, filler);
            for (0..140) |start| {
                @memset(text[0..], filler);
                @memcpy(text[start..][0..word.len], word);
                for ([_]usize{ start + word.len - 1, start + word.len, start + 66, 300 }) |end| {
                    _ = try expectWords(text[0..@max(end, 1)]);
                }
            }
        }
    }
}

test "words of random texts" {
    var random_state = std.Random.DefaultPrng.init(5);
    const random = random_state.random();
    const pieces = [_][]const u8{
        "a",        "Bc",      "7", "x" ** 30, " ", " ", "-", ".", ", ",
        "é",
        "e\u{301}", "\u{301}",
        "語",
        "—",
        "\xFF",
        "𐐀",
    };
    var found: usize = 0;
    for (0..3000) |_| {
        var text: [600]u8 = undefined;
        var len: usize = 0;
        const wanted = random.uintLessThan(usize, text.len - 30);
        while (len < wanted) {
            const piece = pieces[random.uintLessThan(usize, pieces.len)];
            @memcpy(text[len..][0..piece.len], piece);
            len += piece.len;
        }
        found += try expectWords(text[0..len]);
        random.bytes(text[0..100]);
        found += try expectWords(text[0..random.uintLessThan(usize, 100)]);
    }
    try testing.expect(found > 80_000);
}
