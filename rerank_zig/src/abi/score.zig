//! sluice_rerank_score, and what every way of scoring shares: options, statistics and columns of
//! scores. It must never read a number before it was checked.

const std = @import("std");
const Allocator = std.mem.Allocator;
const fusion = @import("../core/fusion.zig");
const scan = @import("../core/scan.zig");
const scan_raw = @import("../core/scan_raw.zig");
const scoring = @import("../core/scoring.zig");
const status = @import("../status.zig");
const text_file = @import("text.zig");
const Collection = @import("../core/collection.zig").Collection;
const Query = @import("../core/query.zig").Query;
const unfilled = @import("../core/unfilled.zig").unfilled;
const Scratch = @import("scratch.zig").Scratch;

const Failure = status.Failure;
const Misuse = status.Misuse;
const Text = text_file.Text;
const Texts = text_file.Texts;

const max_k1 = 1000;
const max_title = 1000;
const max_proximity = 1000;

pub const layouts = .{ Candidates, Options, Statistics, Scores };

pub const Candidates = extern struct {
    texts: Texts,
    titles: Texts,
    similarities: ?[*]align(1) const f32,
    similarity_count: u64,
};

pub const Options = extern struct {
    alpha: f64,
    k1: f64,
    b: f64,
    title: f64,
    proximity: f64,
    normalisation: u32,
    adaptive: u32,
};

pub const Statistics = extern struct {
    document_count: u64,
    text_words: u64,
    title_words: u64,
    hashes: ?[*]align(1) const u32,
    frequencies: ?[*]align(1) const u32,
    count: u64,
};

pub const Scores = extern struct {
    fused: ?[*]align(1) f32,
    dense: ?[*]align(1) f32,
    lexical_raw: ?[*]align(1) f32,
    lexical: ?[*]align(1) f32,
    title: ?[*]align(1) f32,
    proximity: ?[*]align(1) f32,
    capacity: u64,
    alpha: f64,
    chunk_count: u64,
};

export fn sluice_rerank_score(
    query: ?*align(1) const Text,
    candidates: ?*align(1) const Candidates,
    options: ?*align(1) const Options,
    statistics: ?*align(1) const Statistics,
    scores: ?*align(1) Scores,
) u32 {
    return status.codeOf(score(query, candidates, options, statistics, scores));
}

fn score(
    given_query: ?*align(1) const Text,
    given_candidates: ?*align(1) const Candidates,
    options: ?*align(1) const Options,
    statistics: ?*align(1) const Statistics,
    output: ?*align(1) Scores,
) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const arena = scratch.allocator();

    const query_bytes = try text_file.queryOf(given_query);
    const given = (given_candidates orelse return error.NullPointer).*;
    const texts = try text_file.textsOf(given.texts, given.similarity_count);
    const titles = try text_file.titlesOf(given.titles, given.similarity_count);
    const similarities = try similaritiesOf(given.similarities, given.similarity_count);
    const settings = try settingsOf(options);
    const columns = try columnsOf(output, similarities.len);
    const query = try Query.init(arena, query_bytes);
    const collection = try collectionOf(arena, statistics, &query);

    const scanner = try scan_raw.Scanner.init(arena, &query);
    var gathering = try scan.Gathering.init(arena, texts.count());
    for (0..texts.count()) |index| {
        const title = if (titles) |block| block.get(index) else "";
        for ([_][]const u8{ title, texts.get(index) }) |field| {
            try scanner.scan(field, arena, &gathering);
        }
    }
    try rank(arena, &query, gathering.found(), similarities, settings, collection, columns);
}

/// Scores candidates whose terms were found, whichever way, and writes the columns. All arguments
/// were checked, but for the similarities being finite.
pub fn rank(
    arena: Allocator,
    query: *const Query,
    found: scan.Found,
    similarities: []align(1) const f32,
    settings: Settings,
    collection: ?Collection,
    out: Columns,
) Failure!void {
    const dense = try unfilled(arena, f64, similarities.len);
    for (dense, similarities) |*value, similarity| {
        if (!std.math.isFinite(similarity)) return error.SimilarityNotFinite;
        value.* = similarity;
    }
    const words: scoring.Columns = .{
        .lexical = try unfilled(arena, f64, similarities.len),
        .title = try unfilled(arena, f64, similarities.len),
        .proximity = try unfilled(arena, f64, similarities.len),
    };
    const known = collection orelse
        try Collection.ofCandidates(arena, query.hashes.len, found);
    try scoring.score(arena, query, found, known, settings.scoring, words);

    copy(out.lexical_raw, words.lexical);
    copy(out.title, words.title);
    copy(out.proximity, words.proximity);
    const apart = fusion.normalise(dense, settings.normalisation, fusion.cosine_minimum);
    const lexical = words.lexical;
    const words_apart = fusion.normalise(lexical, settings.normalisation, fusion.lexical_minimum);
    const alpha = settings.alpha orelse fusion.adapted(apart, words_apart, known.chunk_count);
    copy(out.dense, dense);
    copy(out.lexical, lexical);
    for (out.fused, dense, lexical) |*fused, by_meaning, by_words| {
        fused.* = @floatCast(fusion.fuse(by_meaning, by_words, alpha));
    }
    out.scores.alpha = alpha;
    out.scores.chunk_count = known.chunk_count;
}

fn copy(to: Column, from: []const f64) void {
    for (to, from) |*target, value| target.* = @floatCast(value);
}

pub fn similaritiesOf(
    pointer: ?[*]align(1) const f32,
    count: u64,
) Misuse![]align(1) const f32 {
    if (count > text_file.max_texts) return error.TooManyCandidates;
    if (count == 0) return &.{};
    const similarities = pointer orelse return error.NullPointer;
    return similarities[0..@intCast(count)];
}

pub const Settings = struct {
    /// Null: adapts to the query.
    alpha: ?f64,
    scoring: scoring.Parameters,
    normalisation: fusion.Normalisation,
};

pub fn settingsOf(pointer: ?*align(1) const Options) Misuse!Settings {
    const options = (pointer orelse return error.NullPointer).*;
    if (options.adaptive == 0 and !isWithin(options.alpha, 0, 1)) return error.AlphaOutOfRange;
    if (!isWithin(options.k1, 0, max_k1)) return error.K1OutOfRange;
    if (!isWithin(options.b, 0, 1)) return error.BOutOfRange;
    if (!isWithin(options.title, 0, max_title)) return error.TitleOutOfRange;
    if (!isWithin(options.proximity, 0, max_proximity)) return error.ProximityOutOfRange;
    return .{
        .alpha = if (options.adaptive == 0) options.alpha else null,
        .scoring = .{
            .k1 = options.k1,
            .b = options.b,
            .title = options.title,
            .proximity = options.proximity,
        },
        .normalisation = switch (options.normalisation) {
            0 => .min_max,
            1 => .theoretical,
            else => return error.UnknownNormalisation,
        },
    };
}

/// What the collection says of the query's terms; null where the caller knows nothing of it. The
/// frequencies are copied, so what was checked is what is used.
pub fn collectionOf(
    arena: Allocator,
    pointer: ?*align(1) const Statistics,
    query: *const Query,
) Failure!?Collection {
    const statistics = (pointer orelse return null).*;
    if (statistics.document_count == 0) return error.StatisticsOutOfRange;
    const frequencies = try arena.alloc(u64, query.hashes.len);
    for (frequencies, query.hashes) |*frequency, hash| {
        frequency.* = try frequencyOf(statistics, hash);
    }
    return .init(
        statistics.document_count,
        statistics.text_words,
        statistics.title_words,
        frequencies,
    );
}

/// By binary search, which ends on any input and reads nothing outside of it; where the hashes are
/// not in order it may miss some.
fn frequencyOf(statistics: Statistics, hash: u32) Misuse!u64 {
    // No hash occurs twice, so there are no more than there are hashes.
    if (statistics.count > std.math.maxInt(u32)) return error.StatisticsOutOfRange;
    if (statistics.count == 0) return 0;
    const hashes = statistics.hashes orelse return error.NullPointer;
    const frequencies = statistics.frequencies orelse return error.NullPointer;
    var low: usize = 0;
    var high: usize = @intCast(statistics.count);
    while (low < high) {
        const middle = low + (high - low) / 2;
        if (hashes[middle] < hash) low = middle + 1 else high = middle;
    }
    if (low == statistics.count or hashes[low] != hash) return 0;
    const frequency = frequencies[low];
    if (frequency > statistics.document_count) return error.StatisticsOutOfRange;
    return frequency;
}

const Column = []align(1) f32;
/// Where the scores go, and with `scores` the numbers beside them.
pub const Columns = struct {
    fused: Column,
    dense: Column,
    lexical_raw: Column,
    lexical: Column,
    title: Column,
    proximity: Column,
    scores: *align(1) Scores,
};

pub fn columnsOf(pointer: ?*align(1) Scores, count: usize) Misuse!Columns {
    const scores = pointer orelse return error.NullPointer;
    if (scores.capacity < count) return error.BufferTooSmall;
    return .{
        .fused = try columnOf(scores.fused, count),
        .dense = try columnOf(scores.dense, count),
        .lexical_raw = try columnOf(scores.lexical_raw, count),
        .lexical = try columnOf(scores.lexical, count),
        .title = try columnOf(scores.title, count),
        .proximity = try columnOf(scores.proximity, count),
        .scores = scores,
    };
}

fn columnOf(pointer: ?[*]align(1) f32, count: usize) Misuse!Column {
    if (count == 0) return &.{};
    const column = pointer orelse return error.NullPointer;
    return column[0..count];
}

/// False for NaN too.
fn isWithin(value: f64, low: f64, high: f64) bool {
    return value >= low and value <= high;
}
