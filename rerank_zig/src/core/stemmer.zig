//! The Snowball English stemmer ("Porter2"), as published with Snowball 3.1. Pure, in place.
//!
//! Source of the algorithm: https://snowballstem.org/algorithms/english/stemmer.html. Words of
//! ASCII letters only, so its rules for apostrophes have no counterpart here. It must never grow
//! a word: every stem fits into the word's own bytes.
//!
//! R1 is what follows the first non-vowel after a vowel, R2 is the same within R1. A 'Y' stands
//! for a y that acts as a consonant while the steps run.

const std = @import("std");
const assert = std.debug.assert;

/// Stems `word` (a to z only) in place and returns the stem, a prefix of the same memory.
pub fn stem(word: []u8) []u8 {
    for (word) |letter| assert(letter >= 'a' and letter <= 'z');
    if (exceptions.get(word)) |replacement| {
        assert(replacement.len <= word.len);
        @memcpy(word[0..replacement.len], replacement);
        return word[0..replacement.len];
    }
    if (word.len < 3) return word;
    var state: Word = .{ .buffer = word, .len = word.len };
    state.markConsonantY();
    state.markRegions();
    state.step1a();
    state.step1b();
    state.step1c();
    state.step2();
    state.step3();
    state.step4();
    state.step5();
    for (state.text()) |*letter| {
        if (letter.* == 'Y') letter.* = 'y';
    }
    return state.text();
}

const exceptions = std.StaticStringMap([]const u8).initComptime(.{
    .{ "skis", "ski" },      .{ "skies", "sky" },    .{ "idly", "idl" },
    .{ "gently", "gentl" },  .{ "ugly", "ugli" },    .{ "early", "earli" },
    .{ "only", "onli" },     .{ "singly", "singl" }, .{ "sky", "sky" },
    .{ "news", "news" },     .{ "howe", "howe" },    .{ "atlas", "atlas" },
    .{ "cosmos", "cosmos" }, .{ "bias", "bias" },    .{ "andes", "andes" },
});

/// Beginnings after which R1 starts at once, where the general rule would cut too early.
const region_prefixes = [_][]const u8{
    "arsen", "commun", "emerg", "gener", "inter", "later", "organ", "past", "univers",
};

const Condition = enum { r1, r2, r1_after_l, r1_after_valid_li, r2_after_s_or_t };
const Rule = struct { []const u8, []const u8, Condition };

const step2_rules = [_]Rule{
    .{ "ization", "ize", .r1 },        .{ "ational", "ate", .r1 }, .{ "fulness", "ful", .r1 },
    .{ "ousness", "ous", .r1 },        .{ "iveness", "ive", .r1 }, .{ "tional", "tion", .r1 },
    .{ "biliti", "ble", .r1 },         .{ "lessli", "less", .r1 }, .{ "entli", "ent", .r1 },
    .{ "ation", "ate", .r1 },          .{ "alism", "al", .r1 },    .{ "aliti", "al", .r1 },
    .{ "ousli", "ous", .r1 },          .{ "iviti", "ive", .r1 },   .{ "ogist", "og", .r1 },
    .{ "fulli", "ful", .r1 },          .{ "enci", "ence", .r1 },   .{ "anci", "ance", .r1 },
    .{ "abli", "able", .r1 },          .{ "izer", "ize", .r1 },    .{ "ator", "ate", .r1 },
    .{ "alli", "al", .r1 },            .{ "bli", "ble", .r1 },     .{ "ogi", "og", .r1_after_l },
    .{ "li", "", .r1_after_valid_li },
};

const step3_rules = [_]Rule{
    .{ "ational", "ate", .r1 }, .{ "tional", "tion", .r1 }, .{ "alize", "al", .r1 },
    .{ "icate", "ic", .r1 },    .{ "iciti", "ic", .r1 },    .{ "ative", "", .r2 },
    .{ "ical", "ic", .r1 },     .{ "ness", "", .r1 },       .{ "ful", "", .r1 },
};

const step4_rules = [_]Rule{
    .{ "ement", "", .r2 }, .{ "ance", "", .r2 }, .{ "ence", "", .r2 },
    .{ "able", "", .r2 },  .{ "ible", "", .r2 }, .{ "ment", "", .r2 },
    .{ "ant", "", .r2 },   .{ "ent", "", .r2 },  .{ "ism", "", .r2 },
    .{ "ate", "", .r2 },   .{ "iti", "", .r2 },  .{ "ous", "", .r2 },
    .{ "ive", "", .r2 },   .{ "ize", "", .r2 },  .{ "ion", "", .r2_after_s_or_t },
    .{ "al", "", .r2 },    .{ "er", "", .r2 },   .{ "ic", "", .r2 },
};

/// A word under the knife: `buffer[0..len]`, with R1 and R2 as offsets that may lie past its end.
const Word = struct {
    buffer: []u8,
    len: usize,
    r1: usize = 0,
    r2: usize = 0,

    fn text(word: *const Word) []u8 {
        return word.buffer[0..word.len];
    }

    /// The suffix is known when this is compiled, which makes it one comparison of integers.
    inline fn endsWith(word: *const Word, comptime suffix: []const u8) bool {
        if (word.len < suffix.len) return false;
        return std.mem.eql(u8, word.buffer[word.len - suffix.len ..][0..suffix.len], suffix);
    }

    /// Replaces the last `count` letters.
    fn replaceEnd(word: *Word, count: usize, replacement: []const u8) void {
        const start = word.len - count;
        assert(start + replacement.len <= word.buffer.len);
        @memcpy(word.buffer[start..][0..replacement.len], replacement);
        word.len = start + replacement.len;
    }

    fn markConsonantY(word: *Word) void {
        const letters = word.text();
        if (letters[0] == 'y') letters[0] = 'Y';
        for (letters[0 .. letters.len - 1], letters[1..]) |previous, *letter| {
            if (letter.* == 'y' and isVowel(previous)) letter.* = 'Y';
        }
    }

    fn markRegions(word: *Word) void {
        const letters = word.text();
        word.r1 = for (region_prefixes) |prefix| {
            if (std.mem.startsWith(u8, letters, prefix)) break prefix.len;
        } else regionAfter(letters, 0);
        word.r2 = regionAfter(letters, word.r1);
    }

    fn regionAfter(letters: []const u8, start: usize) usize {
        var index = start;
        while (index < letters.len and !isVowel(letters[index])) index += 1;
        while (index < letters.len and isVowel(letters[index])) index += 1;
        return @min(index + 1, letters.len);
    }

    /// Plurals.
    fn step1a(word: *Word) void {
        if (word.endsWith("sses")) {
            word.len -= 2;
        } else if (word.endsWith("ied") or word.endsWith("ies")) {
            word.len -= if (word.len - 3 >= 2) 2 else 1;
        } else if (word.endsWith("us") or word.endsWith("ss")) {
            return;
        } else if (word.endsWith("s")) {
            // The vowel must not stand right before the s: "gas" and "this" keep theirs.
            if (word.len >= 2 and holdsVowel(word.buffer[0 .. word.len - 2])) word.len -= 1;
        }
    }

    /// Past and progressive forms.
    fn step1b(word: *Word) void {
        const longest_first = [_][]const u8{ "eedly", "ingly", "edly", "eed", "ing", "ed" };
        const suffix: []const u8 = found: inline for (longest_first) |candidate| {
            if (word.endsWith(candidate)) break :found candidate;
        } else return;
        const start = word.len - suffix.len;
        const before = word.buffer[0..start];

        if (std.mem.startsWith(u8, suffix, "eed")) {
            if (start >= word.r1 and !isAny(before, &.{ "succ", "proc", "exc" })) {
                word.replaceEnd(suffix.len, "ee");
            }
            return;
        }
        if (std.mem.eql(u8, suffix, "ing")) {
            if (before.len == 2 and before[1] == 'y' and !isVowel(before[0])) {
                word.replaceEnd("ying".len, "ie");
                return;
            }
            if (isAny(before, &.{ "even", "cann", "inn", "earr", "herr", "out" })) return;
        }
        if (!holdsVowel(before)) return;
        word.len = start;
        word.restoreEnd();
    }

    /// Gives a verb whose ending was cut the spelling of its infinitive.
    fn restoreEnd(word: *Word) void {
        if (word.endsWith("at") or word.endsWith("bl") or word.endsWith("iz")) {
            word.replaceEnd(0, "e");
        } else if (word.endsInDouble()) {
            const is_short = word.len == 3 and isOneOf(word.buffer[0], "aeo");
            if (!is_short) word.len -= 1;
        } else if (word.len == word.r1 and word.endsInShortSyllable(word.len)) {
            word.replaceEnd(0, "e");
        }
    }

    fn endsInDouble(word: *const Word) bool {
        if (word.len < 2) return false;
        const last = word.buffer[word.len - 1];
        return last == word.buffer[word.len - 2] and isOneOf(last, "bdfgmnprt");
    }

    /// Whether buffer[0..end] ends in a short syllable: consonant, vowel, consonant other than
    /// w, x and Y; or the whole is vowel, consonant; or it ends in "past".
    fn endsInShortSyllable(word: *const Word, end: usize) bool {
        const letters = word.buffer[0..end];
        if (std.mem.endsWith(u8, letters, "past")) return true;
        if (end < 2) return false;
        const last = letters[end - 1];
        if (isVowel(last) or !isVowel(letters[end - 2])) return false;
        return end == 2 or (!isVowel(letters[end - 3]) and !isOneOf(last, "wxY"));
    }

    fn step1c(word: *Word) void {
        if (word.len < 3 or !isOneOf(word.buffer[word.len - 1], "yY")) return;
        if (!isVowel(word.buffer[word.len - 2])) word.buffer[word.len - 1] = 'i';
    }

    fn step2(word: *Word) void {
        word.apply(&step2_rules);
    }

    fn step3(word: *Word) void {
        word.apply(&step3_rules);
    }

    fn step4(word: *Word) void {
        word.apply(&step4_rules);
    }

    /// Only the rule of the longest suffix counts, whether its condition holds or not. Hence the
    /// tables above are ordered by falling length.
    fn apply(word: *Word, comptime rules: []const Rule) void {
        const suffix, const replacement, const condition = found: inline for (rules) |rule| {
            if (word.endsWith(rule[0])) break :found rule;
        } else return;
        const start = word.len - suffix.len;
        const previous: u8 = if (start > 0) word.buffer[start - 1] else 0;
        const holds = switch (condition) {
            .r1 => start >= word.r1,
            .r2 => start >= word.r2,
            .r1_after_l => start >= word.r1 and previous == 'l',
            .r1_after_valid_li => start >= word.r1 and isOneOf(previous, "cdeghkmnrt"),
            .r2_after_s_or_t => start >= word.r2 and isOneOf(previous, "st"),
        };
        if (holds) word.replaceEnd(suffix.len, replacement);
    }

    /// A final e, and the second of two final l.
    fn step5(word: *Word) void {
        if (word.len == 0) return;
        const start = word.len - 1;
        if (word.endsWith("e")) {
            const in_r1 = start >= word.r1 and !word.endsInShortSyllable(start);
            if (start >= word.r2 or in_r1) word.len = start;
        } else if (word.endsWith("ll")) {
            if (start >= word.r2) word.len = start;
        }
    }
};

fn isVowel(letter: u8) bool {
    return isOneOf(letter, "aeiouy");
}

inline fn isOneOf(letter: u8, comptime letters: []const u8) bool {
    return inline for (letters) |candidate| {
        if (letter == candidate) break true;
    } else false;
}

fn isAny(word: []const u8, words: []const []const u8) bool {
    for (words) |candidate| {
        if (std.mem.eql(u8, word, candidate)) return true;
    }
    return false;
}

fn holdsVowel(letters: []const u8) bool {
    for (letters) |letter| {
        if (isVowel(letter)) return true;
    }
    return false;
}

test "rules are ordered by falling length" {
    inline for (.{ step2_rules, step3_rules, step4_rules }) |rules| {
        for (rules[0 .. rules.len - 1], rules[1..]) |left, right| {
            try std.testing.expect(left[0].len >= right[0].len);
        }
    }
}

fn expectStem(word: []const u8, expected: []const u8) !void {
    var buffer: [64]u8 = undefined;
    @memcpy(buffer[0..word.len], word);
    try std.testing.expectEqualStrings(expected, stem(buffer[0..word.len]));
}

test "words and their stems" {
    const pairs = [_][2][]const u8{
        .{ "a", "a" },                    .{ "by", "by" },               .{ "skies", "sky" },
        .{ "dying", "die" },              .{ "ties", "tie" },            .{ "cries", "cri" },
        .{ "gaps", "gap" },               .{ "gas", "gas" },             .{ "kiwis", "kiwi" },
        .{ "caresses", "caress" },        .{ "consensus", "consensus" }, .{ "agreed", "agre" },
        .{ "proceed", "proceed" },        .{ "feed", "feed" },           .{ "hoping", "hope" },
        .{ "hopping", "hop" },            .{ "adding", "add" },          .{ "evening", "evening" },
        .{ "luxuriated", "luxuri" },      .{ "happy", "happi" },         .{ "say", "say" },
        .{ "generalization", "general" }, .{ "communism", "communism" }, .{ "biologist", "biolog" },
        .{ "hopefulness", "hope" },       .{ "replacement", "replac" },  .{ "adoption", "adopt" },
        .{ "controlling", "control" },    .{ "rate", "rate" },           .{ "yyyy", "yyyi" },
    };
    for (pairs) |pair| try expectStem(pair[0], pair[1]);
}

test "no word of up to four letters grows, and none but letters come out" {
    var buffer: [4]u8 = undefined;
    for (1..5) |len| {
        for (0..std.math.pow(usize, 26, len)) |number| {
            var rest = number;
            for (buffer[0..len]) |*letter| {
                letter.* = @intCast('a' + rest % 26);
                rest /= 26;
            }
            for (stem(buffer[0..len])) |letter| try std.testing.expect(std.ascii.isLower(letter));
        }
    }
}
