//! What candidates hold of a query: how often each term, and how near each other. Pure; all memory
//! comes from the caller's arena. The formula that this serves is scoring.zig's.
//!
//! All candidates are counted in one walk. Each has few matches, and which terms they are cannot be
//! foretold; so what is done for every match chooses by numbers rather than by branches.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Collection = @import("collection.zig").Collection;
const Found = @import("scan.zig").Found;
const Match = @import("scan.zig").Match;
const Query = @import("query.zig").Query;
const unfilled = @import("unfilled.zig").unfilled;

/// Words of the query further apart than this are no neighbours.
const max_gap = 3;
/// Neighbours beyond, of a query of many words, are not looked for.
const max_pairs = 64;

const nobody = std.math.maxInt(u32);

/// One term in one candidate.
pub const Tally = struct {
    candidate: u32,
    ordinal: u16,
    /// In the title and in the text.
    counts: [2]u32,
    near: f64,

    const nothing: Tally = .{ .candidate = nobody, .ordinal = 0, .counts = .{ 0, 0 }, .near = 0 };
};

/// Two neighbours of the query in the text of one candidate.
pub const PairTally = struct { candidate: u32, weight: f64, count: u64 };

const Term = struct {
    idf: f64,
    /// Whether it may have neighbours, and which pairs it is the first of.
    is_word: bool,
    first_pair: u16 = 0,
    pair_count: u16 = 0,
    /// That of the candidate that was met last.
    tally: u32 = 0,
};

/// A word in a text, and the tally that it counts in.
const Word = struct { match: Match, tally: u32 };

/// Two neighbours in the query.
const Pair = struct {
    first: u16,
    second: u16,
    gap: u16,
    /// Of the candidate that was met last.
    tally: ?usize = null,

    fn key(pair: Pair) u64 {
        return @as(u64, pair.first) << 32 | @as(u64, pair.second) << 16 | pair.gap;
    }

    fn ascends(_: void, left: Pair, right: Pair) bool {
        return left.key() < right.key();
    }
};

pub const Tallies = struct {
    /// By ordinal.
    terms: []Term,
    pairs: []Pair,
    of_terms: []Tally,
    of_pairs: std.ArrayList(PairTally) = .empty,

    pub fn init(
        arena: Allocator,
        query: *const Query,
        found: Found,
        collection: Collection,
        with_nearness: bool,
    ) Allocator.Error!Tallies {
        std.debug.assert(collection.frequencies.len == query.hashes.len);
        // The first tally is nobody's, and 32 bits count them.
        if (found.matches.len >= nobody) return error.OutOfMemory;
        var tallies: Tallies = .{
            .terms = try arena.alloc(Term, query.hashes.len),
            .pairs = try neighbours(arena, query),
            .of_terms = try unfilled(arena, Tally, found.matches.len + 1),
        };
        for (tallies.terms, query.kinds, 0..) |*term, kind, ordinal| {
            term.* = .{
                .idf = collection.inverseFrequency(ordinal),
                .is_word = kind == .word and with_nearness,
            };
        }
        for (tallies.pairs, 0..) |pair, index| {
            const term = &tallies.terms[pair.first];
            if (term.pair_count == 0) term.first_pair = @intCast(index);
            term.pair_count += 1;
        }
        const words = try unfilled(arena, Word, found.matches.len + 1);
        const counts = tallies.count(found.matches, words);
        try tallies.meetNear(arena, words[0..counts.words]);
        tallies.of_terms = tallies.of_terms[1..][0..counts.tallies];
        return tallies;
    }

    /// Counts terms and gathers the words of texts; there is room for one more than there are
    /// matches. This and `meetNear` are functions of their own, or registers would run short.
    noinline fn count(
        tallies: *Tallies,
        matches: []const Match,
        words: []Word,
    ) struct { tallies: usize, words: usize } {
        const terms, const of_terms = .{ tallies.terms, tallies.of_terms };
        @memset(of_terms, .nothing);
        var last: u32 = 0;
        var word_count: usize = 0;
        for (matches) |match| {
            const term = &terms[match.ordinal];
            const is_new = of_terms[term.tally].candidate != match.candidate();
            last += @intFromBool(is_new);
            term.tally = if (is_new) last else term.tally;
            const tally = &of_terms[term.tally];
            tally.candidate = match.candidate();
            tally.ordinal = match.ordinal;
            tally.counts[match.field % 2] += 1;

            words[word_count] = .{ .match = match, .tally = term.tally };
            word_count += @intFromBool(match.isInText() and term.is_word);
        }
        return .{ .tallies = last, .words = word_count };
    }

    /// Adds what words next to each other add, and counts pairs.
    noinline fn meetNear(tallies: *Tallies, arena: Allocator, words: []const Word) Allocator.Error!void {
        const terms, const of_terms = .{ tallies.terms, tallies.of_terms };
        for (words[0..words.len -| 1], words[@min(1, words.len)..], 1..) |left, right, next| {
            if (left.match.field != right.match.field) continue;
            const distance = right.match.position - left.match.position;
            if (distance <= max_gap) try tallies.meetPairs(arena, left.match, words[next..]);
            if (left.match.ordinal == right.match.ordinal or distance == 0) continue;
            const wide: f64 = @floatFromInt(distance);
            const weight = 1 / (wide * wide);
            of_terms[left.tally].near += terms[right.match.ordinal].idf * weight;
            of_terms[right.tally].near += terms[left.match.ordinal].idf * weight;
        }
    }

    fn meetPairs(
        tallies: *Tallies,
        arena: Allocator,
        first: Match,
        following: []const Word,
    ) Allocator.Error!void {
        const term = &tallies.terms[first.ordinal];
        if (term.pair_count == 0) return;
        for (following) |word| {
            const second = word.match;
            const gap = second.position -% first.position;
            if (second.field != first.field or gap > max_gap) return;
            for (tallies.pairs[term.first_pair..][0..term.pair_count]) |*pair| {
                if (pair.second != second.ordinal or pair.gap != gap) continue;
                (try tallies.pairTally(arena, pair, second.candidate())).count += 1;
            }
        }
    }

    fn pairTally(
        tallies: *Tallies,
        arena: Allocator,
        pair: *Pair,
        candidate: u32,
    ) Allocator.Error!*PairTally {
        const of_pairs = &tallies.of_pairs;
        if (pair.tally) |place| {
            if (of_pairs.items[place].candidate == candidate) return &of_pairs.items[place];
        }
        pair.tally = of_pairs.items.len;
        const tally = try of_pairs.addOne(arena);
        const weight = @min(tallies.terms[pair.first].idf, tallies.terms[pair.second].idf);
        tally.* = .{ .candidate = candidate, .weight = weight, .count = 0 };
        return tally;
    }
};

/// The neighbours in the query, each once, ascending by key.
fn neighbours(arena: Allocator, query: *const Query) Allocator.Error![]Pair {
    const words = query.sequence;
    var pairs = try arena.alloc(Pair, @min(words.len, max_pairs));
    var count: usize = 0;
    for (words[0..words.len -| 1], words[@min(1, words.len)..]) |left, right| {
        if (count == pairs.len) break;
        const gap = right.position - left.position;
        if (gap > max_gap or left.ordinal == right.ordinal) continue;
        pairs[count] = .{ .first = left.ordinal, .second = right.ordinal, .gap = @intCast(gap) };
        count += 1;
    }
    pairs = pairs[0..count];
    std.sort.pdq(Pair, pairs, {}, Pair.ascends);
    count = 0;
    for (pairs) |pair| {
        if (count > 0 and pairs[count - 1].key() == pair.key()) continue;
        pairs[count] = pair;
        count += 1;
    }
    return pairs[0..count];
}
