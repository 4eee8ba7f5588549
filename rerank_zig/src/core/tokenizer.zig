//! Cuts a text into index terms. Pure, without allocation; must never fail on any bytes.
//!
//! A word is a letter or digit and every letter, digit or mark that follows it without a gap.
//! Everything else separates words, and so does each byte that is not well-formed UTF-8. A word is
//! lower-cased code point by code point (simple mapping, no normalisation: composed and decomposed
//! accents differ). Then:
//!   - a stop word is dropped;
//!   - a word of a to z only is reduced to its English stem;
//!   - any other word (digits, accents, other scripts) is its own term;
//!   - a word of more than 64 bytes in lower case is cut to the code points that fit, unstemmed.

const std = @import("std");
const stemmer = @import("stemmer.zig");
const stopwords = @import("stopwords.zig");
const unicode = @import("unicode.zig");

pub const max_term_bytes = 64;

/// A term and where its whole word stands in the text, in bytes. The term's memory is the
/// tokenizer's own and lives until the next call of `next`.
pub const Token = struct { term: []const u8, start: usize, end: usize };

pub const Tokenizer = struct {
    text: []const u8,
    position: usize = 0,
    buffer: [max_term_bytes]u8 = undefined,

    pub fn init(text: []const u8) Tokenizer {
        return .{ .text = text };
    }

    /// The next term that is no stop word, or null at the end of the text.
    pub fn next(tokenizer: *Tokenizer) ?Token {
        while (tokenizer.skipSeparators()) {
            const start = tokenizer.position;
            const word = tokenizer.readWord();
            if (stopwords.contains(word.lowered)) continue;
            const term = if (word.is_stemmable) stemmer.stem(word.lowered) else word.lowered;
            return .{ .term = term, .start = start, .end = tokenizer.position };
        }
        return null;
    }

    /// Moves to the next letter or digit; false at the end of the text.
    fn skipSeparators(tokenizer: *Tokenizer) bool {
        while (tokenizer.position < tokenizer.text.len) {
            const byte = tokenizer.text[tokenizer.position];
            if (byte < 0x80) {
                if (ascii_lower[byte] != 0) return true;
                tokenizer.position += 1;
                continue;
            }
            const decoded = unicode.decode(tokenizer.text[tokenizer.position..]);
            if (decoded.code_point) |code_point| {
                switch (unicode.classify(code_point)) {
                    .letter, .digit => return true,
                    .mark, .separator => {},
                }
            }
            tokenizer.position += decoded.byte_count;
        }
        return false;
    }

    const LoweredWord = struct { lowered: []u8, is_stemmable: bool };

    /// Reads to the end of the word that begins here, lower-casing what fits the buffer.
    fn readWord(tokenizer: *Tokenizer) LoweredWord {
        var len: usize = 0;
        var is_cut = false;
        var is_ascii_letters = true;
        while (tokenizer.position < tokenizer.text.len) {
            const byte = tokenizer.text[tokenizer.position];
            if (byte < 0x80 and len < max_term_bytes) {
                const lowered = ascii_lower[byte];
                if (lowered == 0) break;
                tokenizer.position += 1;
                if (is_cut) continue;
                tokenizer.buffer[len] = lowered;
                len += 1;
                is_ascii_letters = is_ascii_letters and lowered >= 'a';
                continue;
            }
            const decoded = unicode.decode(tokenizer.text[tokenizer.position..]);
            const code_point = decoded.code_point orelse break;
            if (unicode.classify(code_point) == .separator) break;
            tokenizer.position += decoded.byte_count;
            if (is_cut) continue;

            var encoded: [4]u8 = undefined;
            const byte_count = unicode.encode(unicode.lower(code_point), &encoded);
            if (len + byte_count > max_term_bytes) {
                is_cut = true;
                continue;
            }
            @memcpy(tokenizer.buffer[len..][0..byte_count], encoded[0..byte_count]);
            len += byte_count;
            is_ascii_letters = is_ascii_letters and byte_count == 1 and
                std.ascii.isLower(encoded[0]);
        }
        return .{
            .lowered = tokenizer.buffer[0..len],
            .is_stemmable = is_ascii_letters and !is_cut,
        };
    }
};

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
        try std.testing.expectEqualStrings(term, token.term);
    }
    try std.testing.expectEqual(null, tokenizer.next());
}

test "words, stems and stop words" {
    try expectTerms("", &.{});
    try expectTerms(" .,;\n", &.{});
    try expectTerms("The running of the bulls", &.{ "run", "bull" });
    try expectTerms("UTF-8 isn't utf8", &.{ "utf", "8", "isn", "t", "utf8" });
    try expectTerms("get_item(x2)", &.{ "get", "item", "x2" });
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

test "spans cover the whole word in the text" {
    var tokenizer = Tokenizer.init("The Ⱥ-runs");
    const first = tokenizer.next().?;
    try std.testing.expectEqualStrings("ⱥ", first.term);
    try std.testing.expectEqual(4, first.start);
    try std.testing.expectEqual(6, first.end);
    const second = tokenizer.next().?;
    try std.testing.expectEqual(7, second.start);
    try std.testing.expectEqual(11, second.end);
}
