//! Cuts a text into index terms. Pure, without allocation; must never fail on any bytes. These
//! rules are analysis version 1; statistics and caches made under others do not fit them.
//!
//! A word is a letter or digit and every letter, digit or mark that follows it without a gap.
//! Everything else separates words, and so does each byte that is not well-formed UTF-8. A word's
//! position is its ordinal among the words of the text. It is lower-cased code point by code point
//! (simple mapping, no normalisation: composed and decomposed accents differ). Then:
//!   - a stop word has no terms;
//!   - a word of a to z only is reduced to its English stem;
//!   - any other word (digits, accents, other scripts) is its own term;
//!   - a word of more than 64 bytes in lower case is cut to the code points that fit, unstemmed.
//!
//! Identifiers have further terms:
//!   - Parts: an ASCII word is cut, within its first 64 bytes, where a capital follows a small
//!     letter (data|Node), where the last of several capitals begins a small word (HTTP|Server),
//!     and between letters and digits (log|4|j). Of more than one part, each of at least two bytes
//!     that is no stop word is a term, stemmed if it is letters, at the word's position; the first
//!     sixteen such.
//!   - A compound: 2 to 16 words with exactly one joint (- _ . / : @ # \) between each two, where
//!     a word holds a digit or a joint is neither - nor /. The whole run in lower case is a term at
//!     the position of its first word, unless it is longer than 256 bytes.

const std = @import("std");
const stemmer = @import("stemmer.zig");
const stopwords = @import("stopwords.zig");
const unicode = @import("unicode.zig");

pub const max_term_bytes = 64;
pub const max_parts = 16;
pub const max_compound_words = 16;
pub const max_compound_bytes = 256;

pub const Kind = enum(u8) { word, part, compound };

/// A term. Its memory is that of whoever found it, and lives until its next call of `next`.
pub const Term = struct {
    kind: Kind,
    bytes: []const u8,

    pub fn hash(term: Term) u32 {
        return hashOf(term.kind, term.bytes);
    }
};

/// A term and where it stands in the text, in bytes: of a part its whole word.
pub const Token = struct { term: Term, position: u32, start: usize, end: usize };

/// What terms are compared by: never 0, which says "no term".
pub fn hashOf(kind: Kind, term: []const u8) u32 {
    const seed: u64 = if (kind == .compound) 1 else 0;
    const hash: u32 = @truncate(std.hash.Wyhash.hash(seed, term));
    return if (hash == 0) 1 else hash;
}

pub const Tokenizer = struct {
    text: []const u8,
    /// Words begun so far; at the end the length of the field.
    word_count: u32 = 0,
    word: WordTerms = .nothing,
    /// The run of joined words that was looked at last. Its compound, if it has one, is to be
    /// answered after the terms of its first word.
    run: Run = .{ .start = 0, .end = 0, .is_compound = false },
    buffer: [max_compound_bytes]u8 = undefined,

    pub fn init(text: []const u8) Tokenizer {
        return .{ .text = text };
    }

    /// The next term, or null at the end of the text. At one position the whole word comes first,
    /// then its parts, then the compound that begins with it.
    pub fn next(tokenizer: *Tokenizer) ?Token {
        while (true) {
            if (tokenizer.word.next(tokenizer.text)) |term| {
                return tokenizer.token(term, tokenizer.word.end);
            }
            if (tokenizer.run.is_compound) {
                tokenizer.run.is_compound = false;
                if (tokenizer.run.term(tokenizer.text, &tokenizer.buffer)) |term| {
                    return tokenizer.token(term, tokenizer.run.end);
                }
            }
            const start = skipSeparators(tokenizer.text, tokenizer.word.end);
            if (start == tokenizer.text.len) return null;
            tokenizer.word_count += 1;
            tokenizer.word.read(tokenizer.text, start);
            if (tokenizer.word.end > tokenizer.run.end) {
                const word = tokenizer.word;
                tokenizer.run = .init(tokenizer.text, start, word.end, word.has_digit);
            }
        }
    }

    fn token(tokenizer: *const Tokenizer, term: Term, end: usize) Token {
        return .{
            .term = term,
            .position = tokenizer.word_count - 1,
            .start = tokenizer.word.start,
            .end = end,
        };
    }
};

/// The terms of one word: its own and its parts'. It is told the text anew in every call, the same
/// one until the next `read`.
pub const WordTerms = struct {
    /// Bytes start..end of the text.
    start: usize,
    end: usize,
    has_digit: bool = false,
    /// The whole word's term, to be answered first: buffer[0..term_len], nothing of 0.
    term_len: usize = 0,
    /// Where the next part begins; none does from `parts_end` on.
    part_start: usize = 0,
    parts_end: usize = 0,
    part_count: u8 = 0,
    buffer: [max_term_bytes]u8 = undefined,

    pub const nothing: WordTerms = .{ .start = 0, .end = 0 };

    /// Reads the word that begins at `start`, to its end.
    pub fn read(word: *WordTerms, text: []const u8, start: usize) void {
        const found = readWord(text, start, &word.buffer);
        word.start = start;
        word.end = found.end;
        word.has_digit = found.has_digit;
        word.term_len = 0;
        word.part_start = start;
        word.parts_end = start;
        word.part_count = 0;
        if (stopwords.contains(found.lowered)) return;
        const term = if (found.is_stemmable) stemmer.stem(found.lowered) else found.lowered;
        word.term_len = term.len;
        if (found.is_ascii) word.parts_end = @min(found.end, start + max_term_bytes);
    }

    pub fn next(word: *WordTerms, text: []const u8) ?Term {
        if (word.term_len > 0) {
            defer word.term_len = 0;
            return .{ .kind = .word, .bytes = word.buffer[0..word.term_len] };
        }
        const letters = text[word.start..word.parts_end];
        while (word.part_start < word.parts_end and word.part_count < max_parts) {
            const start = word.part_start - word.start;
            const end = partEnd(letters, start);
            word.part_start = word.start + end;
            if (end - start < 2 or end - start == letters.len) continue;
            const part = word.buffer[0 .. end - start];
            for (part, letters[start..end]) |*byte, letter| byte.* = std.ascii.toLower(letter);
            if (stopwords.contains(part)) continue;
            word.part_count += 1;
            return .{ .kind = .part, .bytes = if (isLetter(part[0])) stemmer.stem(part) else part };
        }
        return null;
    }
};

/// Words tied by joints, as many as there are.
pub const Run = struct {
    start: usize,
    end: usize,
    is_compound: bool,

    /// The run whose first word is text[start..end].
    pub fn init(text: []const u8, start: usize, end: usize, has_digit: bool) Run {
        var run: Run = .{ .start = start, .end = end, .is_compound = false };
        var word_count: usize = 1;
        var is_identifier = has_digit;
        while (joinedWord(text, run.end)) |next_start| {
            const word = skipWord(text, next_start);
            const joint = text[run.end];
            is_identifier = is_identifier or word.has_digit or (joint != '-' and joint != '/');
            run.end = word.end;
            word_count += 1;
        }
        run.is_compound = is_identifier and word_count >= 2 and word_count <= max_compound_words;
        return run;
    }

    /// The whole run in lower case, or null where that is too long for a term.
    pub fn term(run: Run, text: []const u8, buffer: *[max_compound_bytes]u8) ?Term {
        const lowered = lowerRun(text[run.start..run.end], buffer) orelse return null;
        return .{ .kind = .compound, .bytes = lowered };
    }
};

pub fn isJoint(byte: u8) bool {
    return switch (byte) {
        '-', '_', '.', '/', ':', '@', '#', '\\' => true,
        else => false,
    };
}

/// The start of the word that one joint at `end` ties to the word that ends there, or null.
fn joinedWord(text: []const u8, end: usize) ?usize {
    if (end + 1 >= text.len or !isJoint(text[end])) return null;
    return if (beginsWord(text[end + 1 ..])) end + 1 else null;
}

fn beginsWord(text: []const u8) bool {
    if (text[0] < 0x80) return ascii_lower[text[0]] != 0;
    const code_point = unicode.decode(text).code_point orelse return false;
    return switch (unicode.classify(code_point)) {
        .letter, .digit => true,
        .mark, .separator => false,
    };
}

/// Where the part of an ASCII word that begins at `start` ends.
fn partEnd(word: []const u8, start: usize) usize {
    var index = start + 1;
    while (index < word.len) : (index += 1) {
        const previous, const byte = .{ word[index - 1], word[index] };
        if (isLetter(previous) != isLetter(byte)) return index;
        if (!std.ascii.isUpper(byte)) continue;
        if (std.ascii.isLower(previous)) return index;
        if (index + 1 < word.len and std.ascii.isLower(word[index + 1])) return index;
    }
    return word.len;
}

fn isLetter(byte: u8) bool {
    return byte >= 'A';
}

/// The next letter or digit from `start` on, or the end of the text.
fn skipSeparators(text: []const u8, start: usize) usize {
    var offset = start;
    while (offset < text.len) {
        const byte = text[offset];
        if (byte < 0x80) {
            if (ascii_lower[byte] != 0) return offset;
            offset += 1;
            continue;
        }
        const decoded = unicode.decode(text[offset..]);
        if (decoded.code_point) |code_point| {
            switch (unicode.classify(code_point)) {
                .letter, .digit => return offset,
                .mark, .separator => {},
            }
        }
        offset += decoded.byte_count;
    }
    return offset;
}

const ReadWord = struct {
    end: usize,
    lowered: []u8,
    has_digit: bool,
    is_ascii: bool,
    is_stemmable: bool,
};

/// Reads to the end of the word that begins at `start`, lower-casing what fits the buffer.
fn readWord(text: []const u8, start: usize, buffer: *[max_term_bytes]u8) ReadWord {
    var offset = start;
    var len: usize = 0;
    var is_cut = false;
    var has_digit = false;
    var is_ascii = true;
    while (offset < text.len) {
        const byte = text[offset];
        if (byte < 0x80) {
            const lowered = ascii_lower[byte];
            if (lowered == 0) break;
            offset += 1;
            has_digit = has_digit or !isLetter(byte);
            if (is_cut or len == max_term_bytes) {
                is_cut = true;
                continue;
            }
            buffer[len] = lowered;
            len += 1;
            continue;
        }
        const decoded = unicode.decode(text[offset..]);
        const code_point = decoded.code_point orelse break;
        const class = unicode.classify(code_point);
        if (class == .separator) break;
        offset += decoded.byte_count;
        is_ascii = false;
        has_digit = has_digit or class == .digit;
        if (is_cut) continue;

        var encoded: [4]u8 = undefined;
        const byte_count = unicode.encode(unicode.lower(code_point), &encoded);
        if (len + byte_count > max_term_bytes) {
            is_cut = true;
            continue;
        }
        @memcpy(buffer[len..][0..byte_count], encoded[0..byte_count]);
        len += byte_count;
    }
    const lowered = buffer[0..len];
    return .{
        .end = offset,
        .lowered = lowered,
        .has_digit = has_digit,
        .is_ascii = is_ascii,
        .is_stemmable = !is_cut and !has_digit and (is_ascii or isAsciiLetters(lowered)),
    };
}

/// Some letters beyond ASCII are ASCII in lower case, such as the Kelvin sign.
fn isAsciiLetters(lowered: []const u8) bool {
    for (lowered) |byte| {
        if (!std.ascii.isLower(byte)) return false;
    }
    return true;
}

/// Reads to the end of the word that begins at `start`, for its extent alone.
fn skipWord(text: []const u8, start: usize) struct { end: usize, has_digit: bool } {
    var offset = start;
    var has_digit = false;
    while (offset < text.len) {
        const byte = text[offset];
        if (byte < 0x80) {
            if (ascii_lower[byte] == 0) break;
            has_digit = has_digit or !isLetter(byte);
            offset += 1;
            continue;
        }
        const decoded = unicode.decode(text[offset..]);
        const code_point = decoded.code_point orelse break;
        const class = unicode.classify(code_point);
        if (class == .separator) break;
        has_digit = has_digit or class == .digit;
        offset += decoded.byte_count;
    }
    return .{ .end = offset, .has_digit = has_digit };
}

/// A run in lower case, or null where the buffer does not hold it.
fn lowerRun(run: []const u8, buffer: *[max_compound_bytes]u8) ?[]const u8 {
    var offset: usize = 0;
    var len: usize = 0;
    while (offset < run.len) {
        const decoded = unicode.decode(run[offset..]);
        offset += decoded.byte_count;
        var encoded: [4]u8 = undefined;
        const byte_count = unicode.encode(unicode.lower(decoded.code_point.?), &encoded);
        if (len + byte_count > buffer.len) return null;
        @memcpy(buffer[len..][0..byte_count], encoded[0..byte_count]);
        len += byte_count;
    }
    return buffer[0..len];
}

/// The lower case of an ASCII letter or digit, 0 for what separates words.
const ascii_lower: [128]u8 = lowered: {
    var lowered: [128]u8 = undefined;
    for (&lowered, 0..) |*byte, code_point| {
        byte.* = if (unicode.classify(code_point) == .separator) 0 else unicode.lower(code_point);
    }
    break :lowered lowered;
};

fn expectTerms(text: []const u8, expected: []const []const u8) !void {
    var tokenizer = Tokenizer.init(text);
    for (expected) |term| {
        const token = tokenizer.next() orelse return error.TestTooFewTerms;
        try std.testing.expectEqualStrings(term, token.term.bytes);
    }
    try std.testing.expectEqual(null, tokenizer.next());
}

test "words, stems and stop words" {
    try expectTerms("", &.{});
    try expectTerms(" .,;\n", &.{});
    try expectTerms("The running of the bulls", &.{ "run", "bull" });
    try expectTerms("UTF-- isn't utf8", &.{ "utf", "isn", "t", "utf8", "utf" });
    try expectTerms("get item(x2)", &.{ "get", "item", "x2" });
}

test "words beyond ASCII" {
    try expectTerms("Ärger Straße ΟΔΟΣ Москва", &.{ "ärger", "straße", "οδοσ", "москва" });
    try expectTerms("cafe\u{301}s \u{301}running", &.{ "cafe\u{301}s", "run" });
    try expectTerms("x²+½", &.{ "x²", "½" });
    try expectTerms("İI", &.{"ii"});
}

test "malformed bytes separate words" {
    try expectTerms("run\xFFning \xC3\x28 walks\xE2\x82", &.{ "run", "ning", "walk" });
    try expectTerms("a1\xED\xA0\x80b1", &.{ "a1", "b1" });
}

test "long words are cut at a code point and not stemmed" {
    const long = "running" ** 10;
    try expectTerms(long, &.{long[0..64]});
    const exact = "s" ** 60 ++ "ings";
    try expectTerms(exact, &.{exact[0..63]});
    const accented = "x" ++ "é" ** 40;
    try expectTerms(accented ++ " next", &.{ accented[0..63], "next" });
}

test "parts of identifiers" {
    try expectTerms("dataNodes", &.{ "datanod", "data", "node" });
    try expectTerms("HTTPServer", &.{ "httpserver", "http", "server" });
    try expectTerms("log4j2Config", &.{ "log4j2config", "log", "config" });
    try expectTerms("sha256Sum", &.{ "sha256sum", "sha", "256", "sum" });
    try expectTerms("isEmpty", &.{ "isempti", "empti" });
    try expectTerms("iN x2 Ax", &.{ "x2", "ax" });
    try expectTerms("FOO Foo foo", &.{ "foo", "foo", "foo" });
    try expectTerms("dataÉtat", &.{"dataétat"});
    try expectTerms("aaBb" ** 17, &(.{("aabb" ** 16)} ++ .{ "aa", "bbaa", "bbaa" } ++ .{"bbaa"} ** 13));
}

test "compounds" {
    try expectTerms("NN-HA-42", &.{ "nn", "nn-ha-42", "ha", "42" });
    try expectTerms("java.io.IOException: end.", &.{
        "java", "java.io.ioexception", "io", "ioexcept", "io", "except", "end",
    });
    try expectTerms("state-of-the-art and/or x..y a.-b", &.{ "state", "art", "x", "y", "b" });
    try expectTerms("_to_be_", &.{"to_be"});
    try expectTerms("Ä_7.", &.{ "ä", "ä_7", "7" });
    try expectTerms("e" ++ ".e" ** 15, &(.{ "e", "e" ++ ".e" ** 15 } ++ .{"e"} ** 15));
    try expectTerms("e" ++ ".e" ** 16, &(.{"e"} ** 17));
    const long = "é" ** 127;
    try expectTerms(long ++ ".e", &.{ "é" ** 32, "é" ** 127 ++ ".e", "e" });
    try expectTerms(long ++ ".ee", &.{ "é" ** 32, "ee" });
}

test "positions count stop words and spans cover whole words" {
    var tokenizer = Tokenizer.init("The Ⱥ-runs of dfs.dataDir");
    const expected = [_]struct { Kind, []const u8, u32, []const u8 }{
        .{ .word, "ⱥ", 1, "Ⱥ" },
        .{ .word, "run", 2, "runs" },
        .{ .word, "dfs", 4, "dfs" },
        .{ .compound, "dfs.datadir", 4, "dfs.dataDir" },
        .{ .word, "datadir", 5, "dataDir" },
        .{ .part, "data", 5, "dataDir" },
        .{ .part, "dir", 5, "dataDir" },
    };
    for (expected) |each| {
        const token = tokenizer.next().?;
        try std.testing.expectEqual(each[0], token.term.kind);
        try std.testing.expectEqualStrings(each[1], token.term.bytes);
        try std.testing.expectEqual(each[2], token.position);
        try std.testing.expectEqualStrings(each[3], tokenizer.text[token.start..token.end]);
    }
    try std.testing.expectEqual(null, tokenizer.next());
    try std.testing.expectEqual(6, tokenizer.word_count);
}

test "a hash is never 0, and compounds have hashes of their own" {
    try std.testing.expect(hashOf(.word, "fox") == hashOf(.part, "fox"));
    try std.testing.expect(hashOf(.word, "fox") != hashOf(.compound, "fox"));
}
