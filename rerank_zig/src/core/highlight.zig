//! Finds where a query's terms stand in texts. Pure; what it marks is, span by span, what the terms
//! of tokenizer.zig say.
//!
//! The prefixes of the query's terms rule out most words and parts; only a word that is left is read,
//! stemmed and hashed, a short one of letters alone only when it is met first.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Alone = word_blocks.Alone;
const Block = word_blocks.Block;
const Blocks = word_blocks.Blocks;
const Borders = @import("classes.zig").Borders;
const Prefixes = prefixes_file.Prefixes;
const prefixes_file = @import("prefixes.zig");
const Query = @import("query.zig").Query;
const tokenizer_file = @import("tokenizer.zig");
const WordMemo = @import("word_memo.zig").WordMemo;
const word_blocks = @import("word_blocks.zig");

/// Characters start..end of a text, the end excluded.
pub const Span = extern struct { start: u32, end: u32 };

/// Marks any number of texts, each of less than 4 GiB, for one query.
pub const Highlighter = struct {
    query: *const Query,
    prefixes: *const Prefixes,
    memo: *WordMemo,

    /// All memory comes from the arena, which outlives the highlighter, as the query does.
    pub fn init(arena: Allocator, query: *const Query) Allocator.Error!Highlighter {
        const memo = try arena.create(WordMemo);
        memo.* = .empty;
        return .{ .query = query, .prefixes = try .init(arena, query), .memo = memo };
    }

    /// Writes the places of a text that hold a term of the query, ascending and without overlap, as
    /// far as they fit: a whole word where it or a part of it matches, a whole run where the
    /// compound does. Returns how many there are.
    pub fn mark(highlighter: *const Highlighter, text: []const u8, spans: []align(1) Span) usize {
        var marking: Marking = .{ .highlighter = highlighter, .text = text, .spans = spans };
        var blocks = Blocks.init(text);
        var is_ascii = true;
        while (blocks.next()) |piece| switch (piece) {
            .block => |*block| {
                is_ascii = is_ascii and block.classes.non_ascii == 0;
                marking.readBlock(block);
            },
            .alone => |word| {
                is_ascii = false; // at least not known to be
                marking.readAlone(word);
                blocks.skipTo(marking.word.end);
            },
        };
        if (!is_ascii) countCharacters(text, spans[0..@min(marking.count, spans.len)]);
        return marking.count;
    }
};

/// One text under way. Spans are bytes here.
const Marking = struct {
    highlighter: *const Highlighter,
    text: []const u8,
    spans: []align(1) Span,
    count: usize = 0,
    /// Words up to here are read.
    read_end: usize = 0,
    word: tokenizer_file.WordTerms = .nothing,

    fn readBlock(marking: *Marking, block: *const Block) void {
        const prefixes = marking.highlighter.prefixes;
        const word_starts = block.starts();
        var borders: Borders = .{};
        const parts = borders.next(block.classes, block.words, 0).parts & block.words;
        var candidates = word_starts | parts;
        while (candidates != 0) : (candidates &= candidates - 1) {
            const place: u6 = @intCast(@ctz(candidates));
            const bits = prefixes.match(block.window[place..][0..Prefixes.byte_count]);
            if (bits == 0) continue;
            const up_to_place = word_starts & prefixes_file.everything >> (63 - place);
            const first: u6 = @intCast(63 - @clz(up_to_place));
            const start = block.start + first;
            if (start < marking.read_end) continue;
            const end = start + block.wordLen(first);
            if (bits & prefixes.compounds != 0 and first == place) {
                const is_joined = block.isJoinedToWordBefore(marking.text, place);
                if (!is_joined and marking.readRun(start, end)) continue;
            }
            marking.read_end = end;
            if (marking.holdsTerm(block, parts, first)) marking.add(start, end);
        }
    }

    fn readAlone(marking: *Marking, word: Alone) void {
        marking.word.read(marking.text, word.start);
        if (word.start < marking.read_end) return;
        const end = marking.word.end;
        if (!word.isJoinedToWordBefore(marking.text) and marking.readRun(word.start, end)) return;
        if (marking.readsTerm()) marking.add(word.start, end);
    }

    /// Whether the word that begins at `first` holds a term of the query.
    fn holdsTerm(marking: *Marking, block: *const Block, parts: u64, first: u6) bool {
        const memo = marking.highlighter.memo;
        const key = plainKey(block, parts, first) orelse {
            marking.word.read(marking.text, block.start + first);
            return marking.readsTerm();
        };
        const known = memo.get(key) orelse read: {
            marking.word.read(marking.text, block.start + first);
            const term = marking.word.next(marking.text);
            const ordinal = if (term) |found| marking.find(found) else null;
            memo.put(key, ordinal);
            break :read ordinal;
        };
        return known != null;
    }

    /// Whether one of the terms of the word that was read is the query's.
    fn readsTerm(marking: *Marking) bool {
        while (marking.word.next(marking.text)) |term| {
            if (marking.find(term) != null) return true;
        }
        return false;
    }

    /// Marks the run of this word and others, if its compound is a term of the query; else the word
    /// itself is yet to be looked at.
    fn readRun(marking: *Marking, start: usize, end: usize) bool {
        const text = marking.text;
        if (end == text.len or !tokenizer_file.isJoint(text[end])) return false;
        marking.word.read(text, start);
        const run: tokenizer_file.Run = .init(text, start, end, marking.word.has_digit);
        if (!run.is_compound) return false;
        var buffer: [tokenizer_file.max_compound_bytes]u8 = undefined;
        const term = run.term(text, &buffer) orelse return false;
        if (marking.find(term) == null) return false;
        marking.read_end = run.end;
        marking.add(start, run.end);
        return true;
    }

    fn find(marking: *const Marking, term: tokenizer_file.Term) ?u16 {
        return marking.highlighter.query.find(term.hash());
    }

    fn add(marking: *Marking, start: usize, end: usize) void {
        if (marking.count < marking.spans.len) {
            marking.spans[marking.count] = .{ .start = @intCast(start), .end = @intCast(end) };
        }
        marking.count += 1;
    }
};

/// The memo's key of the word that begins here, if it is short, of ASCII letters only and without
/// parts.
fn plainKey(block: *const Block, parts: u64, first: u6) ?u128 {
    const len = block.wordLen(first);
    if (len > WordMemo.max_word_len) return null;
    const mask = ((@as(u64, 1) << @intCast(len)) - 1) << first;
    const others = ~(block.classes.lower | block.classes.upper) | parts;
    if (mask & others != 0) return null;
    return WordMemo.keyOf(block.window[first..][0..WordMemo.max_word_len], len);
}

/// Turns ascending spans of bytes into spans of characters, in one pass.
fn countCharacters(text: []const u8, spans: []align(1) Span) void {
    var byte: usize = 0;
    var character: u32 = 0;
    for (spans) |*span| {
        inline for (.{ "start", "end" }) |edge| {
            const next = @field(span, edge);
            character += characterCount(text[byte..next]);
            byte = next;
            @field(span, edge) = character;
        }
    }
}

/// All bytes but those that continue a code point.
fn characterCount(bytes: []const u8) u32 {
    var count: u32 = 0;
    for (bytes) |byte| count +%= @intFromBool(byte & 0xC0 != 0x80);
    return count;
}

const odd_texts = @import("odd_texts.zig");
const testing = std.testing;

/// Marks texts by all of their terms.
const Oracle = struct {
    query: *const Query,
    tokenizer: tokenizer_file.Tokenizer,
    /// Found, but a compound that begins with it may still take its place.
    waiting: ?Bytes = null,

    const Bytes = struct { start: usize, end: usize };

    fn next(oracle: *Oracle) ?Span {
        const text = oracle.tokenizer.text;
        const bytes = oracle.nextBytes() orelse return null;
        var span: Span = .{ .start = 0, .end = 0 };
        for (text[0..bytes.end], 0..) |byte, index| {
            if (byte & 0xC0 == 0x80) continue;
            if (index < bytes.start) span.start += 1;
            span.end += 1;
        }
        return span;
    }

    fn nextBytes(oracle: *Oracle) ?Bytes {
        while (oracle.tokenizer.next()) |token| {
            if (oracle.query.find(token.term.hash()) == null) continue;
            const found: Bytes = .{ .start = token.start, .end = token.end };
            const waiting = oracle.waiting orelse {
                oracle.waiting = found;
                continue;
            };
            if (found.start >= waiting.end) {
                oracle.waiting = found;
                return waiting;
            }
            // A part of the same word, a word within the run, or the run of the same first word.
            if (found.start == waiting.start) {
                oracle.waiting.?.end = @max(found.end, waiting.end);
            }
        }
        defer oracle.waiting = null;
        return oracle.waiting;
    }
};

/// Marks the texts both ways.
fn expectSame(query_text: []const u8, texts: []const []const u8) !usize {
    var arena = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena.deinit();
    const query = try Query.init(arena.allocator(), query_text);
    const highlighter = try Highlighter.init(arena.allocator(), &query);
    var found: usize = 0;
    for (texts) |text| {
        errdefer std.debug.print("query {s}\ntext {x}\n{s}\n", .{ query_text, text, text });
        var room: [800]Span = undefined;
        const spans = room[0..highlighter.mark(text, &room)];
        var oracle: Oracle = .{ .query = &query, .tokenizer = .init(text) };
        for (spans) |span| try testing.expectEqual(oracle.next(), span);
        try testing.expectEqual(null, oracle.next());
        found += spans.len;

        var few: [3]Span = @splat(.{ .start = 7, .end = 7 });
        try testing.expectEqual(spans.len, highlighter.mark(text, few[0..2]));
        const fit = @min(spans.len, 2);
        try testing.expectEqualSlices(Span, spans[0..fit], few[0..fit]);
        for (few[fit..]) |blank| try testing.expectEqual(Span{ .start = 7, .end = 7 }, blank);
    }
    return found;
}

fn expectSpans(query_text: []const u8, text: []const u8, expected: []const []const u8) !void {
    var arena = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena.deinit();
    const query = try Query.init(arena.allocator(), query_text);
    const highlighter = try Highlighter.init(arena.allocator(), &query);
    var spans: [9]Span = undefined;
    try testing.expectEqual(expected.len, highlighter.mark(text, &spans));
    var characters: [100]u21 = undefined;
    var view = (try std.unicode.Utf8View.init(text)).iterator();
    var count: usize = 0;
    while (view.nextCodepoint()) |character| : (count += 1) characters[count] = character;
    for (expected, spans[0..expected.len]) |marked, span| {
        var buffer: [100]u8 = undefined;
        var len: usize = 0;
        for (characters[span.start..span.end]) |character| {
            len += try std.unicode.utf8Encode(character, buffer[len..]);
        }
        try testing.expectEqualStrings(marked, buffer[0..len]);
    }
}

test "every form of a query's word is found" {
    try expectSpans(
        "compact regions",
        "Compaction? No: — compacted the Región and region.",
        &.{ "Compaction", "compacted", "region" },
    );
}

test "a part marks its word and a compound its run" {
    try expectSpans("node", "DataNode node_7 nodes", &.{ "DataNode", "node", "nodes" });
    try expectSpans("nn-ha-42", "an NN-HA-42 or HA-42, 42", &.{ "NN-HA-42", "HA", "42", "42" });
    try expectSpans("to_be", "to_be or to be", &.{"to_be"});
    try expectSpans("data_dir", "data_dir.data_dir", &.{ "data", "dir", "data", "dir" });
}

const query_words =
    "dying HTTPServer nn-ha-42 to_be é.x Köln 7 naïveté_2 regions the \u{212A}elvin x" ++
    " " ++ "w" ** 70 ++ " " ++ "w" ** 70 ++ "_1 " ++ "l" ** 50 ++ "." ++ "m" ** 50;

test "every tail length and every place in a block" {
    const tokens = [_][]const u8{
        "dies",               "HttpServerPool",          "NN-HA-42",          "to_be",
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
        "w" ** 70,            "x " ++ "W" ** 70 ++ "_1", "w" ** 70 ++ "_1_x", "L" ** 50 ++ "." ++ "M" ** 50,
        "nn-ha-42é-7",
    };
    var text: [300]u8 = undefined;
    for (tokens) |token| {
        var found: usize = 0;
        for (0..150) |start| {
            for ([_][]const u8{ " ", "é ", "-" }) |filler| {
                for (&text, 0..) |*byte, index| byte.* = filler[index % filler.len];
                @memset(text[start / 2 ..][0 .. start / 4], '.');
                @memcpy(text[start..][0..token.len], token);
                for ([_]usize{ start + token.len, start + token.len + 1, 300 }) |end| {
                    found += try expectSame(query_words, &.{text[0..end]});
                }
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
    for (0..3000) |_| {
        var query: [60]u8 = undefined;
        var text: [700]u8 = undefined;
        const query_text = odd_texts.words(random, &query);
        const body = odd_texts.anything(random, &text);
        const texts = [_][]const u8{ body, body[0 .. body.len / 2], body[body.len / 3 ..] };
        found += try expectSame(query_text, &texts);
    }
    try testing.expect(found > 30_000);
}
