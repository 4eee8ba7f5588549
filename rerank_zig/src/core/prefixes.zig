//! Tells words that cannot hold any term of a query from the first bytes of the word alone, so that
//! most words of a text are neither lower-cased nor stemmed nor hashed. Pure. It may let a word
//! through that holds no term, never the other way round.
//!
//! One bit a term (shared, where there are more than 64), one table a byte of the word: what a word
//! can be is the intersection of what each of its first bytes allows. Capitals allow what their
//! small letters do.
//!
//! A stem of n letters shares at least its first n - 1 letters with each word that it is the stem
//! of, and all where it has only one or two, for a suffix that is replaced rather than cut leaves at
//! most one letter that the word does not have: happ(y) happi, hop(ing) hope, relat(ion) relate. The
//! exceptions are words such as "dying", whose stem is "die".

const std = @import("std");
const Allocator = std.mem.Allocator;
const Query = @import("query.zig").Query;

pub const Prefixes = struct {
    /// Looked at in one word; the first half of them before the second.
    pub const byte_count = 8;
    const half = byte_count / 2;

    allowed: [byte_count][256]u64,
    /// Bits of the terms that are compounds.
    compounds: u64,

    pub fn init(arena: Allocator, query: *const Query) Allocator.Error!*const Prefixes {
        const prefixes = try arena.create(Prefixes);
        prefixes.compounds = 0;
        // Of the bytes after its prefix a term says nothing.
        var unsaid: [byte_count]u64 = @splat(0);
        for (query.terms, 0..) |term, ordinal| {
            for (@min(byte_count, prefixLen(term))..byte_count) |place| {
                unsaid[place] |= bitOf(ordinal);
            }
        }
        for (&prefixes.allowed, unsaid) |*table, bits| table.* = @splat(bits);

        for (query.terms, query.kinds, 0..) |term, kind, ordinal| {
            const bit = bitOf(ordinal);
            if (kind == .compound) prefixes.compounds |= bit;
            for (term[0..@min(byte_count, prefixLen(term))], 0..) |byte, place| {
                prefixes.allowed[place][byte] |= bit;
                prefixes.allowed[place][std.ascii.toUpper(byte)] |= bit;
            }
            // Not every word of "die" begins with "di".
            if (isStemOfYing(term)) {
                for ("yY") |byte| prefixes.allowed[1][byte] |= bit;
            }
        }
        return prefixes;
    }

    /// Bits of the terms that a word or part can hold which begins with these bytes; all bits where
    /// one of them is not ASCII, whose lower case is not known byte by byte.
    pub inline fn match(prefixes: *const Prefixes, bytes: *const [byte_count]u8) u64 {
        if (hasNonAscii(bytes[0..half])) return everything;
        var bits = prefixes.allowed[0][bytes[0]];
        inline for (1..half) |place| bits &= prefixes.allowed[place][bytes[place]];
        return if (bits == 0) 0 else prefixes.matchRest(bits, bytes);
    }

    fn matchRest(prefixes: *const Prefixes, first_half: u64, bytes: *const [byte_count]u8) u64 {
        if (hasNonAscii(bytes[half..])) return everything;
        var bits = first_half;
        inline for (half..byte_count) |place| bits &= prefixes.allowed[place][bytes[place]];
        return bits;
    }
};

pub const everything: u64 = std.math.maxInt(u64);

fn hasNonAscii(bytes: *const [Prefixes.half]u8) bool {
    return std.mem.readInt(u32, bytes, .little) & 0x8080_8080 != 0;
}

fn bitOf(ordinal: usize) u64 {
    return @as(u64, 1) << @intCast(ordinal % 64);
}

/// How many bytes each word has in common with the term that it holds.
fn prefixLen(term: []const u8) usize {
    for (term) |byte| {
        if (!std.ascii.isLower(byte)) return term.len; // no stem, but the word itself
    }
    return if (term.len <= 2) term.len else term.len - 1;
}

fn isStemOfYing(term: []const u8) bool {
    return term.len == 3 and std.mem.endsWith(u8, term, "ie");
}

test "every word of a stem passes, others do not" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const query = try Query.init(
        arena.allocator(),
        "happy dying hope relational skies a-1 logging usability Äther 42",
    );
    const prefixes = try Prefixes.init(arena.allocator(), &query);
    const pass = [_][]const u8{
        "Happiness", "HAPPY",    "dies",  "died",        "dying", "hoping", "hopes",  "relation",
        "relativ",   "sky",      "skis",  "a-1",         "A-1",   "logs",   "logged", "usable",
        "42",        "\xC4ther", "x\xC3", "logging\xC3",
    };
    for (pass) |word| try std.testing.expect(prefixes.match(&padded(word)) != 0);
    const fail = [_][]const u8{ "", "h", "hap", "hippy", "dog", "relic", "a-2", "b", "43", "4" };
    for (fail) |word| try std.testing.expectEqual(0, prefixes.match(&padded(word)));
    const ordinal = query.find(@import("tokenizer.zig").hashOf(.compound, "a-1")).?;
    try std.testing.expectEqual(bitOf(ordinal), prefixes.compounds);
}

fn padded(word: []const u8) [Prefixes.byte_count]u8 {
    var bytes: [Prefixes.byte_count]u8 = @splat(0);
    const len = @min(word.len, bytes.len);
    @memcpy(bytes[0..len], word[0..len]);
    return bytes;
}

/// A stem and its word, with at most the last letter of the stem changed.
fn expectSharedPrefix(word: []const u8) !void {
    const stemmer = @import("stemmer.zig");
    var buffer: [64]u8 = undefined;
    @memcpy(buffer[0..word.len], word);
    const stem = stemmer.stem(buffer[0..word.len]);
    if (stem.len == 0) return;
    const shared = prefixLen(stem);
    if (shared <= word.len and std.mem.eql(u8, stem[0..shared], word[0..shared])) return;
    if (isStemOfYing(stem) and stem[0] == word[0] and word[1] == 'y') return;
    std.debug.print("{s} -> {s}\n", .{ word, stem });
    return error.TestUnexpectedResult;
}

test "stems share all but their last letter with their words" {
    var buffer: [16]u8 = undefined;
    // Every word of up to five letters, over one letter of each kind that the rules tell apart.
    const few = "aeiystlnbdgz";
    for (1..6) |len| {
        for (0..std.math.pow(usize, few.len, len)) |number| {
            var rest = number;
            for (buffer[0..len]) |*letter| {
                letter.* = few[rest % few.len];
                rest /= few.len;
            }
            try expectSharedPrefix(buffer[0..len]);
        }
    }
    // Beginnings of up to three letters with one or two of the endings that the rules name.
    const endings = [_][]const u8{
        "",        "s",       "sses",  "ied",    "ies",    "ing",     "ingly", "ed",     "edly",
        "eed",     "eedly",   "ying",  "at",     "bl",     "iz",      "y",     "ation",  "izer",
        "alli",    "ality",   "e",     "ibly",   "ably",   "ency",    "ancy",  "ment",   "ement",
        "ious",    "ive",     "iviti", "ness",   "ful",    "fully",   "less",  "lessly", "icate",
        "ability", "ization", "ative", "bility", "logist", "ational", "ll",
    };
    for (0..26 * 26 * 26) |number| {
        const start = [3]u8{
            @intCast('a' + number % 26),
            @intCast('a' + number / 26 % 26),
            @intCast('a' + number / 676),
        };
        for (endings) |first| {
            for ([_][]const u8{ "", "ing", "ed", "ly", "s" }) |second| {
                var word: std.ArrayList(u8) = .initBuffer(&buffer);
                word.appendSliceAssumeCapacity(&start);
                word.appendSliceAssumeCapacity(first);
                word.appendSliceAssumeCapacity(second);
                try expectSharedPrefix(word.items);
            }
        }
    }
}
