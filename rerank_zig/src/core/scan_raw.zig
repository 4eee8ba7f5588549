//! Finds a query's terms in raw UTF-8. Pure; matches go into the caller's list. What it finds is,
//! match by match, what the text's Sequence holds.
//!
//! Words and parts begin where masks of byte classes say so, 64 bytes at once. The prefixes of the
//! query's terms rule out most of those beginnings; only a word that is left is read, stemmed and
//! hashed, a short one of letters alone only when it is met first. Words beyond ASCII are always
//! read.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Block = classes.Block;
const classes = @import("classes.zig");
const Gathering = @import("scan.zig").Gathering;
const Match = @import("scan.zig").Match;
const Prefixes = prefixes_file.Prefixes;
const prefixes_file = @import("prefixes.zig");
const Query = @import("query.zig").Query;
const tokenizer_file = @import("tokenizer.zig");
const unicode = @import("unicode.zig");
const WordMemo = @import("word_memo.zig").WordMemo;

const block_len = classes.block_len;
/// Looked at beyond the block.
const reach = WordMemo.max_word_len;

/// Reads any number of texts for one query.
pub const Scanner = struct {
    query: *const Query,
    prefixes: *const Prefixes,
    memo: *WordMemo,

    /// All memory comes from the arena, which outlives the scanner, as the query does.
    pub fn init(arena: Allocator, query: *const Query) Allocator.Error!Scanner {
        const memo = try arena.create(WordMemo);
        memo.* = .empty;
        return .{ .query = query, .prefixes = try .init(arena, query), .memo = memo };
    }

    /// Gathers the query's terms in a field of this text.
    pub fn scan(
        scanner: *const Scanner,
        text: []const u8,
        arena: Allocator,
        gathering: *Gathering,
    ) Allocator.Error!void {
        var scanning: Scanning = .{
            .scanner = scanner,
            .text = text,
            .arena = arena,
            .matches = &gathering.matches,
            .field = gathering.field(),
        };
        var start: usize = 0;
        while (text.len - start > block_len + reach) : (start += block_len) {
            try scanning.readBlock(start, text[start..][0 .. block_len + reach]);
        }
        // What is left with zeros after it, which separate words.
        var rest: [2 * block_len + reach]u8 = @splat(0);
        const rest_len = text.len - start;
        @memcpy(rest[0..rest_len], text[start..]);
        var offset: usize = 0;
        while (offset < rest_len) : (offset += block_len) {
            try scanning.readBlock(start + offset, rest[offset..][0 .. block_len + reach]);
        }
        gathering.end(scanning.word_count);
    }
};

/// One text under way.
const Scanning = struct {
    scanner: *const Scanner,
    text: []const u8,
    arena: Allocator,
    matches: *std.ArrayList(Match),
    field: u32,

    borders: classes.Borders = .{},
    /// Which bytes of this block and of the one before belong to words.
    words: u64 = 0,
    words_before: u64 = 0,
    /// Bytes of a code point that reach into the block to come, and whether they belong to a word.
    spill: Spill = .{},
    /// Words begun before this block, and where the last of them did.
    word_count: u32 = 0,
    last_word_start: usize = 0,
    /// Words up to here are read.
    read_end: usize = 0,
    word: tokenizer_file.WordTerms = .nothing,

    const Spill = struct { byte_count: u3 = 0, in_word: bool = false };
    const Window = *const [block_len + reach]u8;

    /// Reads the block that begins at `start` of the text, beyond whose end zeros follow.
    fn readBlock(scanning: *Scanning, start: usize, window: Window) Allocator.Error!void {
        const block = Block.of(window[0..block_len]);
        scanning.words_before = scanning.words;
        scanning.words = if (block.non_ascii == 0)
            block.lower | block.upper | block.digit
        else
            scanning.wordsBeyondAscii(start, block);
        const starts = scanning.borders.next(block, scanning.words, window[block_len]);

        var candidates = starts.words | starts.parts;
        while (candidates != 0) : (candidates &= candidates - 1) {
            const place: u6 = @intCast(@ctz(candidates));
            const bits = scanning.scanner.prefixes.match(window[place..][0..Prefixes.byte_count]);
            if (bits == 0) continue;
            if (bits & scanning.scanner.prefixes.compounds == 0) {
                if (scanning.plainLen(window, block, starts, place)) |len| {
                    const key = WordMemo.keyOf(window[place..][0..WordMemo.max_word_len], len);
                    try scanning.readPlainWord(start, place, starts.words, key);
                    continue;
                }
            }
            try scanning.readWordAt(start, place, starts.words, bits);
        }
        if (starts.words != 0) {
            scanning.word_count += @popCount(starts.words);
            scanning.last_word_start = start + block_len - 1 - @clz(starts.words);
        }
    }

    /// Which bytes of the block belong to words, where some are not ASCII.
    fn wordsBeyondAscii(scanning: *Scanning, start: usize, block: Block) u64 {
        const spill_mask = (@as(u64, 1) << scanning.spill.byte_count) - 1;
        var words = block.lower | block.upper | block.digit;
        if (scanning.spill.in_word) words |= spill_mask;
        var rest = block.non_ascii & ~spill_mask;
        scanning.spill = .{};
        while (rest != 0) {
            const place: u6 = @intCast(@ctz(rest));
            const decoded = unicode.decode(scanning.text[start + place ..]);
            const class = if (decoded.code_point) |known| unicode.classify(known) else .separator;
            const in_word = switch (class) {
                .letter, .digit => true,
                .mark => (words << 1 | scanning.borders.word) >> place & 1 != 0,
                .separator => false,
            };
            const mask = ((@as(u64, 1) << decoded.byte_count) - 1) << place;
            rest &= ~mask;
            if (in_word) words |= mask;
            const end = @as(usize, place) + decoded.byte_count;
            if (end > block_len) {
                scanning.spill = .{ .byte_count = @intCast(end - block_len), .in_word = in_word };
            }
        }
        return words;
    }

    /// The length of the word that begins here, if it is short, of ASCII letters only and has no
    /// parts. That of one that goes on in the next block may be left unsaid.
    fn plainLen(
        scanning: *const Scanning,
        window: Window,
        block: Block,
        starts: classes.Borders.Starts,
        place: u6,
    ) ?u6 {
        if (starts.words >> place & 1 == 0) return null;
        const len = @ctz(~(scanning.words >> place));
        if (@as(usize, place) + len >= block_len) return lowerLen(window[place..][0 .. reach + 1]);
        if (len > WordMemo.max_word_len) return null;
        const mask = ((@as(u64, 1) << @intCast(len)) - 1) << place;
        const others = ~(block.lower | block.upper) | starts.parts;
        return if (mask & others == 0) @intCast(len) else null;
    }

    /// The same where only the first letter may be a capital, byte by byte.
    fn lowerLen(bytes: *const [reach + 1]u8) ?u6 {
        if (!std.ascii.isAlphabetic(bytes[0])) return null;
        for (bytes[1..], 1..) |byte, len| {
            if (std.ascii.isLower(byte)) continue;
            const ends = byte < 0x80 and !std.ascii.isAlphanumeric(byte);
            return if (ends) @intCast(len) else null;
        }
        return null;
    }

    /// Reads such a word, unless the memo knows what it holds.
    fn readPlainWord(
        scanning: *Scanning,
        start: usize,
        place: u6,
        word_starts: u64,
        key: u128,
    ) Allocator.Error!void {
        const scanner = scanning.scanner;
        const ordinal = scanner.memo.get(key) orelse read: {
            scanning.word.read(scanning.text, start + place);
            const term = scanning.word.next(scanning.text);
            const ordinal = if (term) |found| scanner.query.find(found.hash()) else null;
            scanner.memo.put(key, ordinal);
            break :read ordinal;
        };
        const words_before = @popCount(word_starts & ~(prefixes_file.everything << place));
        try scanning.matches.append(scanning.arena, .{
            .position = scanning.word_count + words_before,
            .field = scanning.field,
            .ordinal = ordinal orelse return,
        });
    }

    /// Reads the word that holds this byte of the block, unless it is read already.
    fn readWordAt(
        scanning: *Scanning,
        start: usize,
        place: u6,
        word_starts: u64,
        bits: u64,
    ) Allocator.Error!void {
        const up_to_place = word_starts & (prefixes_file.everything >> (block_len - 1 - place));
        const is_in_block = up_to_place != 0;
        const word_start = if (is_in_block)
            start + block_len - 1 - @clz(up_to_place)
        else
            scanning.last_word_start;
        if (word_start < scanning.read_end) return;

        // Of the word that began before the block, its start was counted with its block.
        const position = scanning.word_count + @popCount(up_to_place) - 1;
        const text = scanning.text;
        scanning.word.read(text, word_start);
        scanning.read_end = scanning.word.end;
        while (scanning.word.next(text)) |term| try scanning.find(term, position);

        const may_be_compound = bits & scanning.scanner.prefixes.compounds != 0;
        if (!may_be_compound or word_start != start + place) return;
        if (scanning.isJoinedToWordBefore(start, place)) return;
        const run: tokenizer_file.Run =
            .init(text, word_start, scanning.word.end, scanning.word.has_digit);
        if (!run.is_compound) return;
        var buffer: [tokenizer_file.max_compound_bytes]u8 = undefined;
        if (run.term(text, &buffer)) |term| try scanning.find(term, position);
    }

    fn find(scanning: *Scanning, term: tokenizer_file.Term, position: u32) Allocator.Error!void {
        const ordinal = scanning.scanner.query.find(term.hash()) orelse return;
        try scanning.matches.append(scanning.arena, .{
            .position = position,
            .field = scanning.field,
            .ordinal = ordinal,
        });
    }

    /// Whether exactly one joint stands between the word that begins here and another one.
    fn isJoinedToWordBefore(scanning: *const Scanning, start: usize, place: u6) bool {
        const index = start + place;
        if (index < 2 or !tokenizer_file.isJoint(scanning.text[index - 1])) return false;
        return if (place >= 2)
            scanning.words >> (place - 2) & 1 != 0
        else
            scanning.words_before >> (block_len - 2 + place) & 1 != 0;
    }
};

const odd_texts = @import("odd_texts.zig");
const testing = std.testing;

/// Scans the text both ways.
fn expectSame(query_text: []const u8, texts: []const []const u8) !usize {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const query = try Query.init(arena, query_text);
    const scanner = try Scanner.init(arena, &query);
    var reader: @import("sequence.zig").Reader = .{};
    var expected: std.ArrayList(Match) = .empty;
    var gathering = try Gathering.init(arena, texts.len); // for as many fields, at most
    for (texts, 0..) |text, field| {
        const sequence = try reader.read(arena, text);
        for (sequence.hashes, sequence.positions) |hash, position| {
            try expected.append(arena, .{
                .position = position,
                .field = @intCast(field),
                .ordinal = query.find(hash) orelse continue,
            });
        }
        try scanner.scan(text, arena, &gathering);
        errdefer std.debug.print("query {s}\ntext {x}\n{s}\n", .{ query_text, text, text });
        try testing.expectEqual(sequence.length, gathering.lengths.items[field]);
        try testing.expectEqualSlices(Match, expected.items, gathering.matches.items);
    }
    return expected.items.len;
}

const query_words =
    "dying HTTPServer nn-ha-42 to_be é.x Köln 7 naïveté_2 regions the \u{212A}elvin x";

test "every tail length and every place in a block" {
    const tokens = [_][]const u8{
        "dies",               "HttpServerPool",   "NN-HA-42", "to_be",
        "É.X",
        "KÖLN.7a",
        "\u{212A}elvins",     "7",
        "aé 7",
        "x.NN-HA-42",         "\u{301}x",
        "é\u{301}.nn-ha-42",
        "nn-ha-42-7",         "xServer\u{301}-7",
        "語_x",
        "\xFFregion\xE2\x82",
        "𐐀.7",
        "naïveté_2",
    };
    var text: [300]u8 = undefined;
    for (tokens) |token| {
        var found: usize = 0;
        for (0..150) |start| {
            @memset(&text, ' ');
            @memset(text[start / 2 ..][0 .. start / 4], '.');
            @memcpy(text[start..][0..token.len], token);
            for ([_]usize{ start + token.len, start + token.len + 1, 300 }) |end| {
                found += try expectSame(query_words, &.{text[0..end]});
            }
            @memset(text[0..start], 'a');
            found += try expectSame(query_words, &.{text[0 .. start + token.len]});
        }
        try testing.expect(found > 0);
    }
}

test "random bytes, random code points, random identifiers" {
    var random_state = std.Random.DefaultPrng.init(7);
    const random = random_state.random();
    var found: usize = 0;
    for (0..4000) |_| {
        var query: [60]u8 = undefined;
        var text: [700]u8 = undefined;
        const query_text = odd_texts.words(random, &query);
        const body = odd_texts.anything(random, &text);
        const texts = [_][]const u8{ body, body[0 .. body.len / 2], body[body.len / 3 ..] };
        found += try expectSame(query_text, &texts);
    }
    try testing.expect(found > 40_000);
}

test "queries of more terms than there are bits" {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    var query: std.ArrayList(u8) = .empty;
    for (0..200) |number| {
        const word = try std.fmt.allocPrint(arena, "w{d}x-{d} ", .{ number, number });
        try query.appendSlice(arena, word);
    }
    const found = try expectSame(query.items, &.{ query.items, "w7 w77x w199x-199 w7x-8" });
    try testing.expect(found > 400);
}
