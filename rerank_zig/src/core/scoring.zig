//! What the words of a query say for candidates: BM25F over title and text, and what words that
//! stand near each other add. Pure; scratch comes from the caller's arena, none for a candidate.
//!
//! lexical(D) = Σ over the query's unique terms t of idf(t) · sat(tf(t, D))                    (terms)
//!            + proximity · (Σ over pairs of neighbours in the query of
//!                             min(idf, idf) · sat(count in D / norm(text))                    (phrases)
//!                         + Σ over the terms t of min(1, idf(t)) · sat(near(t, D) / norm(text)))
//!
//! - tf(t, D) = count in the text / norm(text) + title · count in the title / norm(title), with
//!   norm(field) = 1 - b + b · words / average words: BM25F after Robertson and Zaragoza, "The
//!   Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.6;
//! - sat(x) = x · (k1 + 1) / (x + k1);
//! - idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)), as Lucene has it, which is never negative;
//! - neighbours in the query are two words, no stop words, at most 3 positions apart; they count in
//!   D where they stand in that order and distance, after Metzler and Croft, "A Markov Random Field
//!   Model for Term Dependencies" (2005);
//! - near(t, D) adds idf(u) / distance² for every word u of the query, another one than t, whose
//!   match stands next before or after one of t: after Büttcher, Clarke and Lushman, "Term
//!   Proximity Scoring for Ad-Hoc Retrieval on Very Large Text Collections" (2006).
//! A term that the query repeats counts once. Parts and compounds are terms as others, but only
//! whole words have neighbours.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Query = @import("query.zig").Query;
const scan = @import("scan.zig");

pub const Parameters = struct { k1: f64, b: f64, title: f64, proximity: f64 };

/// Words of the query further apart than this are no neighbours.
const max_gap = 3;
/// Neighbours beyond, of a query of many words, are not looked for.
const max_pairs = 64;

/// What is known of the collection behind the candidates.
pub const Collection = struct {
    chunk_count: u64,
    /// Words a chunk, of its text and of its title.
    text_average: f64,
    title_average: f64,
    /// By the ordinal of the query's terms: chunks that hold it; none is above `chunk_count`.
    frequencies: []const u64,

    /// Counts the candidates themselves, for when the collection is not known.
    pub fn ofCandidates(
        arena: Allocator,
        term_count: usize,
        candidates: []const scan.Candidate,
    ) Allocator.Error!Collection {
        const frequencies = try arena.alloc(u64, term_count);
        @memset(frequencies, 0);
        // The candidate, counted from 1, that a term was last seen in.
        const last = try arena.alloc(usize, term_count);
        @memset(last, 0);
        var text_words: u64 = 0;
        var title_words: u64 = 0;
        for (candidates, 1..) |candidate, number| {
            text_words += candidate.text.length;
            title_words += candidate.title.length;
            for ([_][]const scan.Match{ candidate.title.matches, candidate.text.matches }) |matches| {
                for (matches) |match| {
                    if (last[match.ordinal] == number) continue;
                    last[match.ordinal] = number;
                    frequencies[match.ordinal] += 1;
                }
            }
        }
        return init(candidates.len, text_words, title_words, frequencies);
    }

    pub fn init(
        chunk_count: u64,
        text_words: u64,
        title_words: u64,
        frequencies: []const u64,
    ) Collection {
        const count: f64 = @floatFromInt(@max(1, chunk_count));
        return .{
            .chunk_count = chunk_count,
            .text_average = @as(f64, @floatFromInt(@max(1, text_words))) / count,
            .title_average = @as(f64, @floatFromInt(@max(1, title_words))) / count,
            .frequencies = frequencies,
        };
    }
};

/// A column for the whole score, and what titles and nearness added to it.
pub const Columns = struct { lexical: []f64, title: []f64, proximity: []f64 };

/// Scores every candidate by the query's words. All columns are as long as `candidates`.
pub fn score(
    arena: Allocator,
    query: *const Query,
    candidates: []const scan.Candidate,
    collection: Collection,
    parameters: Parameters,
    columns: Columns,
) Allocator.Error!void {
    var scorer = try Scorer.init(arena, query, collection, parameters);
    for (candidates, columns.lexical, columns.title, columns.proximity) |candidate, *l, *t, *p| {
        const scored = scorer.candidate(candidate);
        l.* = scored.terms + scored.proximity;
        t.* = scored.title;
        p.* = scored.proximity;
    }
}

/// Two neighbours in the query, and how often the candidate at hand has them; zero between
/// candidates.
const Pair = struct {
    first: u16,
    second: u16,
    gap: u16,
    count: u32 = 0,

    fn key(pair: Pair) u64 {
        return @as(u64, pair.first) << 32 | @as(u64, pair.second) << 16 | pair.gap;
    }

    fn ascends(_: void, left: Pair, right: Pair) bool {
        return left.key() < right.key();
    }
};

/// A term of the query, and what the candidate at hand has of it; zero between candidates.
const Term = struct {
    idf: f64,
    near: f64 = 0,
    text: u32 = 0,
    title: u32 = 0,
    /// Whether it may have neighbours, and which pairs it is the first of.
    is_word: bool,
    first_pair: u16 = 0,
    pair_count: u16 = 0,
};

const Scorer = struct {
    const Scored = struct { terms: f64, title: f64, proximity: f64 };

    collection: Collection,
    parameters: Parameters,
    terms: []Term,
    pairs: []Pair,
    /// Which of them the candidate at hand has.
    met: []u16,
    met_count: usize = 0,
    pairs_met: []u16,
    pairs_met_count: usize = 0,

    fn init(
        arena: Allocator,
        query: *const Query,
        collection: Collection,
        parameters: Parameters,
    ) Allocator.Error!Scorer {
        std.debug.assert(collection.frequencies.len == query.hashes.len);
        const terms = try arena.alloc(Term, query.hashes.len);
        for (terms, collection.frequencies, query.kinds) |*term, frequency, kind| {
            term.* = .{
                .idf = inverseDocumentFrequency(collection.chunk_count, frequency),
                .is_word = kind == .word and parameters.proximity > 0,
            };
        }
        const pairs = try neighbours(arena, query);
        for (pairs, 0..) |pair, index| {
            const term = &terms[pair.first];
            if (term.pair_count == 0) term.first_pair = @intCast(index);
            term.pair_count += 1;
        }
        return .{
            .collection = collection,
            .parameters = parameters,
            .terms = terms,
            .pairs = pairs,
            .met = try arena.alloc(u16, terms.len),
            .pairs_met = try arena.alloc(u16, pairs.len),
        };
    }

    fn candidate(scorer: *Scorer, given: scan.Candidate) Scored {
        scorer.readText(given.text.matches);
        for (given.title.matches) |match| scorer.meet(match.ordinal).title += 1;

        const text_norm = scorer.norm(given.text.length, scorer.collection.text_average);
        const title_norm = scorer.norm(given.title.length, scorer.collection.title_average);
        var scored: Scored = .{ .terms = 0, .title = 0, .proximity = 0 };
        for (scorer.met[0..scorer.met_count]) |ordinal| {
            const term = &scorer.terms[ordinal];
            const in_text = share(term.text, text_norm);
            const in_title = scorer.parameters.title * share(term.title, title_norm);
            const whole = term.idf * scorer.saturated(in_text + in_title);
            scored.terms += whole;
            // Rounding can put the difference a little below 0.
            if (in_title > 0) scored.title += @max(0, whole - term.idf * scorer.saturated(in_text));
            if (term.near > 0) {
                scored.proximity += @min(1, term.idf) * scorer.saturated(term.near / text_norm);
            }
            term.near = 0;
            term.text = 0;
            term.title = 0;
        }
        for (scorer.pairs_met[0..scorer.pairs_met_count]) |index| {
            const pair = &scorer.pairs[index];
            const weight = @min(scorer.terms[pair.first].idf, scorer.terms[pair.second].idf);
            scored.proximity += weight * scorer.saturated(share(pair.count, text_norm));
            pair.count = 0;
        }
        scorer.met_count = 0;
        scorer.pairs_met_count = 0;
        scored.proximity *= scorer.parameters.proximity;
        return scored;
    }

    fn meet(scorer: *Scorer, ordinal: u16) *Term {
        const term = &scorer.terms[ordinal];
        if (term.text == 0 and term.title == 0) {
            scorer.met[scorer.met_count] = ordinal;
            scorer.met_count += 1;
        }
        return term;
    }

    /// Counts terms and pairs, and what words near each other add, in one walk.
    fn readText(scorer: *Scorer, matches: []const scan.Match) void {
        var before: ?scan.Match = null;
        for (matches, 1..) |match, next| {
            const term = scorer.meet(match.ordinal);
            term.text += 1;
            if (!term.is_word) continue;
            if (before) |other| scorer.meetNear(other, match);
            before = match;
            if (term.pair_count == 0) continue;
            for (matches[next..]) |after| {
                const gap = after.position - match.position;
                if (gap > max_gap) break;
                if (gap > 0) scorer.meetPair(term, after.ordinal, gap);
            }
        }
    }

    fn meetNear(scorer: *Scorer, left: scan.Match, right: scan.Match) void {
        if (left.ordinal == right.ordinal or left.position == right.position) return;
        const distance: f64 = @floatFromInt(right.position - left.position);
        const weight = 1 / (distance * distance);
        const left_term, const right_term = .{
            &scorer.terms[left.ordinal],
            &scorer.terms[right.ordinal],
        };
        left_term.near += right_term.idf * weight;
        right_term.near += left_term.idf * weight;
    }

    fn meetPair(scorer: *Scorer, first: *const Term, second: u16, gap: u32) void {
        for (scorer.pairs[first.first_pair..][0..first.pair_count], first.first_pair..) |*pair, place| {
            if (pair.second != second or pair.gap != gap) continue;
            if (pair.count == 0) {
                scorer.pairs_met[scorer.pairs_met_count] = @intCast(place);
                scorer.pairs_met_count += 1;
            }
            pair.count += 1;
            return;
        }
    }

    fn norm(scorer: *const Scorer, length: u32, average: f64) f64 {
        const b = scorer.parameters.b;
        return 1 - b + b * @as(f64, @floatFromInt(length)) / average;
    }

    fn saturated(scorer: *const Scorer, frequency: f64) f64 {
        if (frequency == 0) return 0;
        return frequency * (scorer.parameters.k1 + 1) / (frequency + scorer.parameters.k1);
    }
};

/// A count in a field of this norm; the norm of an empty field may be 0.
fn share(count: u32, norm: f64) f64 {
    return if (count == 0) 0 else @as(f64, @floatFromInt(count)) / norm;
}

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

fn inverseDocumentFrequency(chunk_count: u64, frequency: u64) f64 {
    const count: f64 = @floatFromInt(chunk_count);
    const held: f64 = @floatFromInt(frequency);
    return @log(1 + (count - held + 0.5) / (held + 0.5));
}

const testing = std.testing;
const plain: Parameters = .{ .k1 = 1, .b = 0, .title = 3, .proximity = 0 };

fn at(position: u32, ordinal: u16) scan.Match {
    return .{ .position = position, .ordinal = ordinal };
}

/// One candidate's score, with every term in one of ten chunks and ten words a field.
fn scoreOf(query_text: []const u8, one: scan.Candidate, parameters: Parameters) !Scorer.Scored {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const query = try Query.init(arena, query_text);
    const frequencies = try arena.alloc(u64, query.hashes.len);
    @memset(frequencies, 1);
    const collection: Collection = .init(10, 100, 100, frequencies);
    var scorer = try Scorer.init(arena, &query, collection, parameters);
    _ = scorer.candidate(one);
    return scorer.candidate(one); // once more: nothing may be left of the one before
}

const rare = @log(1 + 9.5 / 1.5);

test "inverse document frequency" {
    try testing.expectApproxEqAbs(@log(1.0 + 2.5 / 0.5), inverseDocumentFrequency(2, 0), 1e-12);
    try testing.expectApproxEqAbs(@log(1.0 + 0.5 / 2.5), inverseDocumentFrequency(2, 2), 1e-12);
}

test "a term counts in text and title, saturated together" {
    const scored = try scoreOf("fox", .{
        .title = .{ .length = 10, .matches = &.{at(0, 0)} },
        .text = .{ .length = 10, .matches = &.{ at(2, 0), at(9, 0) } },
    }, plain);
    try testing.expectApproxEqAbs(rare * 10.0 / 6.0, scored.terms, 1e-12);
    try testing.expectApproxEqAbs(rare * (10.0 / 6.0 - 4.0 / 3.0), scored.title, 1e-12);
    try testing.expectEqual(0, scored.proximity);
}

test "a longer field counts less" {
    const parameters: Parameters = .{ .k1 = 1, .b = 0.5, .title = 3, .proximity = 0 };
    const scored = try scoreOf("fox", .{
        .title = .{ .length = 0, .matches = &.{} },
        .text = .{ .length = 30, .matches = &.{at(2, 0)} },
    }, parameters);
    try testing.expectApproxEqAbs(rare * 0.5 * 2 / 1.5, scored.terms, 1e-12);
}

test "neighbours count in their order and distance, nearness in any" {
    const parameters: Parameters = .{ .k1 = 1, .b = 0, .title = 3, .proximity = 0.5 };
    const near = 2 * (1 * 2 * rare / (rare + 1));
    const phrase = rare * 1 * 2 / 2.0;
    const nothing: scan.Field = .{ .length = 0, .matches = &.{} };
    const ordered = try scoreOf("red fox", .{
        .title = nothing,
        .text = .{ .length = 9, .matches = &.{ at(4, 0), at(5, 1) } },
    }, parameters);
    try testing.expectApproxEqAbs(0.5 * (near + phrase), ordered.proximity, 1e-12);
    const reversed = try scoreOf("red fox", .{
        .title = nothing,
        .text = .{ .length = 9, .matches = &.{ at(4, 1), at(5, 0) } },
    }, parameters);
    try testing.expectApproxEqAbs(0.5 * near, reversed.proximity, 1e-12);
    const apart = try scoreOf("red fox", .{
        .title = nothing,
        .text = .{ .length = 9, .matches = &.{ at(4, 0), at(6, 1) } },
    }, parameters);
    const quarter = 2 * ((rare / 4.0) * 2.0 / (rare / 4.0 + 1.0));
    try testing.expectApproxEqAbs(0.5 * quarter, apart.proximity, 1e-12);
}

test "a query without words, and a candidate without any" {
    const nothing: scan.Field = .{ .length = 0, .matches = &.{} };
    const scored = try scoreOf("", .{ .title = nothing, .text = nothing }, plain);
    try testing.expectEqual(Scorer.Scored{ .terms = 0, .title = 0, .proximity = 0 }, scored);
}

test "statistics of the candidates count a chunk once" {
    var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena_state.deinit();
    const candidates = [_]scan.Candidate{
        .{
            .title = .{ .length = 1, .matches = &.{at(0, 0)} },
            .text = .{ .length = 5, .matches = &.{ at(1, 0), at(2, 0) } },
        },
        .{
            .title = .{ .length = 0, .matches = &.{} },
            .text = .{ .length = 6, .matches = &.{at(1, 1)} },
        },
    };
    const found = try Collection.ofCandidates(arena_state.allocator(), 3, &candidates);
    try testing.expectEqual(2, found.chunk_count);
    try testing.expectEqual(5.5, found.text_average);
    try testing.expectEqual(0.5, found.title_average);
    try testing.expectEqualSlices(u64, &.{ 1, 1, 0 }, found.frequencies);
}
