//! Threads that open, fill, ask and close the same stores at random, each store at any time by any
//! of them, the closed ones too. What is kept must score as the text that was put does, whoever
//! puts and whoever closes. Built with ThreadSanitizer, it also fails on a race that went well. It
//! must never wait for anything but its threads.

const std = @import("std");
const c = @import("header");

const chunk_count = 64;
const batch = 12;
const shared_stores = 4;
const thread_count = 8;
/// So little that chunks push each other out.
const store_bytes = 6000;

const Chunks = struct {
    texts: [chunk_count][]const u8,
    /// Of each chunk for the query.
    scores: [chunk_count]f32,
    statistics: c.sluice_statistics,
    query: c.sluice_text,
};

const options: c.sluice_options = .{
    .alpha = 0.5,
    .k1 = 1.2,
    .b = 0.75,
    .title = 1,
    .proximity = 1,
    .normalisation = c.SLUICE_MIN_MAX,
    .adaptive = 1,
};

var handles: [shared_stores]std.atomic.Value(u64) = @splat(.init(0));
var statuses: [c.SLUICE_STATUS_COUNT]std.atomic.Value(u64) = @splat(.init(0));

pub fn main(init: std.process.Init) !void {
    const arena = init.arena.allocator();
    const arguments = try init.minimal.args.toSlice(arena);
    const rounds = if (arguments.len > 1) try std.fmt.parseInt(usize, arguments[1], 10) else 2000;
    const chunks = try makeChunks(arena);
    var threads: [thread_count]std.Thread = undefined;
    for (&threads, 0..) |*thread, seed| {
        thread.* = try .spawn(.{}, hammer, .{ &chunks, seed, rounds });
    }
    for (threads) |thread| thread.join();

    for (&handles) |*handle| _ = c.sluice_store_close(handle.load(.monotonic));
    expectAllFree();
    var counts: [statuses.len]u64 = undefined;
    for (&counts, &statuses) |*total, *status| total.* = status.load(.monotonic);
    const result = .{ .threads = thread_count, .rounds = rounds, .statuses = counts };
    const line = try std.json.Stringify.valueAlloc(arena, result, .{});
    try std.Io.File.stdout().writeStreamingAll(init.io, line);
}

fn makeChunks(arena: std.mem.Allocator) !Chunks {
    const query = "red fox nn-ha-42 jumps";
    var chunks: Chunks = .{
        .texts = undefined,
        .scores = undefined,
        .query = .{ .bytes = query, .byte_count = query.len },
        // Known, so that no chunk's score hangs on the others'.
        .statistics = std.mem.zeroInit(c.sluice_statistics, .{
            .document_count = 1000,
            .text_words = 20_000,
            .title_words = 1000,
        }),
    };
    for (&chunks.texts, &chunks.scores, 0..) |*text, *expected, index| {
        const filler = try arena.alloc(u8, index * 7);
        for (filler, 0..) |*byte, place| byte.* = "abcd efg hijkl "[place % 15];
        const values = .{ index, index, filler };
        text.* = try std.fmt.allocPrint(arena, "red {d} fox nn-ha-{d} {s}", values);
        const offsets = [_]u32{ 0, @intCast(text.len) };
        const candidates = std.mem.zeroInit(c.sluice_candidates, .{
            .texts = c.sluice_texts{
                .bytes = text.ptr,
                .byte_count = text.len,
                .offsets = &offsets,
                .offset_count = offsets.len,
            },
            .similarities = &[_]f32{1},
            .similarity_count = 1,
        });
        var columns: [6][batch]f32 = undefined;
        var scores = scoresOf(&columns);
        const known = &chunks.statistics;
        const status = c.sluice_rerank_score(&chunks.query, &candidates, &options, known, &scores);
        expect(status == c.SLUICE_OK, "the texts themselves score");
        expected.* = columns[2][0];
        expect(expected.* > 0, "the query's words are in every chunk");
    }
    return chunks;
}

fn scoresOf(columns: *[6][batch]f32) c.sluice_scores {
    var scores: c.sluice_scores = undefined;
    const names = .{ "fused", "dense", "lexical_raw", "lexical", "title", "proximity" };
    inline for (names, 0..) |name, index| {
        @field(scores, name) = &columns[index];
    }
    scores.capacity = batch;
    return scores;
}

fn hammer(chunks: *const Chunks, seed: u64, rounds: usize) void {
    var state: std.Random.DefaultPrng = .init(seed);
    const random = state.random();
    for (0..rounds) |_| {
        const shared = &handles[random.uintLessThan(usize, shared_stores)];
        const handle = shared.load(.monotonic);
        count(switch (random.uintLessThan(u8, 32)) {
            0 => reopen(shared),
            1 => c.sluice_store_close(handle),
            2 => use(handle),
            3...12 => put(chunks, handle, random),
            13...20 => missing(handle, random),
            else => score(chunks, handle, random),
        });
    }
}

fn count(status: u32) void {
    const is_known = status == c.SLUICE_OK or status == c.SLUICE_UNKNOWN_STORE;
    expect(is_known or status == c.SLUICE_TOO_MANY_STORES, "an answer that nobody asked for");
    _ = statuses[status].fetchAdd(1, .monotonic);
}

/// Puts a new store where others find it, and closes the one that was there.
fn reopen(shared: *std.atomic.Value(u64)) u32 {
    var handle: u64 = 0;
    const status = c.sluice_store_open(store_bytes, &handle);
    if (status == c.SLUICE_OK) count(c.sluice_store_close(shared.swap(handle, .monotonic)));
    return status;
}

fn use(handle: u64) u32 {
    var used: c.sluice_usage = undefined;
    const status = c.sluice_store_usage(handle, &used);
    if (status == c.SLUICE_OK) expect(used.bytes <= store_bytes, "more than the bound");
    return status;
}

const Batch = struct {
    chosen: [batch]usize,
    names: [4 * batch]u8 = undefined,
    name_bytes: usize = 0,

    fn init(random: std.Random) Batch {
        var chunks: Batch = .{ .chosen = undefined };
        for (&chunks.chosen) |*index| {
            index.* = random.uintLessThan(usize, chunk_count);
            const room = chunks.names[chunks.name_bytes..];
            const name = std.fmt.bufPrint(room, "c{d}\n", .{index.*}) catch unreachable;
            chunks.name_bytes += name.len;
        }
        chunks.name_bytes -= 1;
        return chunks;
    }

    fn ids(chunks: *const Batch) c.sluice_ids {
        return .{ .bytes = &chunks.names, .byte_count = chunks.name_bytes, .count = batch };
    }
};

fn put(chunks: *const Chunks, handle: u64, random: std.Random) u32 {
    const chosen: Batch = .init(random);
    var bytes: [batch * 1024]u8 = undefined;
    var offsets: [batch + 1]u32 = undefined;
    offsets[0] = 0;
    for (chosen.chosen, 0..) |index, place| {
        const text = chunks.texts[index];
        @memcpy(bytes[offsets[place]..][0..text.len], text);
        offsets[place + 1] = offsets[place] + @as(u32, @intCast(text.len));
    }
    const texts: c.sluice_texts = .{
        .bytes = &bytes,
        .byte_count = offsets[batch],
        .offsets = &offsets,
        .offset_count = offsets.len,
    };
    return c.sluice_store_put(handle, &chosen.ids(), null, &texts);
}

fn missing(handle: u64, random: std.Random) u32 {
    const chosen: Batch = .init(random);
    var is_missing: [batch]u8 = @splat(7);
    const status = c.sluice_store_missing(handle, &chosen.ids(), &is_missing);
    for (is_missing) |flag| expect(if (status == c.SLUICE_OK) flag <= 1 else flag == 7, "no flag");
    return status;
}

fn score(chunks: *const Chunks, handle: u64, random: std.Random) u32 {
    const chosen: Batch = .init(random);
    const similarities: [batch]f32 = @splat(0.5);
    var is_missing: [batch]u8 = undefined;
    var columns: [6][batch]f32 = undefined;
    var scores = scoresOf(&columns);
    const status = c.sluice_store_score(
        handle,
        &chunks.query,
        &chosen.ids(),
        &similarities,
        &options,
        &chunks.statistics,
        &scores,
        &is_missing,
    );
    if (status != c.SLUICE_OK) return status;
    for (chosen.chosen, is_missing, columns[2]) |index, was_missing, words| {
        const expected = if (was_missing == 1) 0 else chunks.scores[index];
        expect(words == expected, "a chunk scores otherwise than its text");
    }
    return status;
}

/// No place was lost among the stores that there may be.
fn expectAllFree() void {
    var all: [64]u64 = undefined;
    for (&all) |*handle| {
        expect(c.sluice_store_open(0, handle) == c.SLUICE_OK, "a store is left open");
    }
    for (all) |handle| {
        expect(c.sluice_store_close(handle) == c.SLUICE_OK, "a store is lost");
    }
}

fn expect(is_so: bool, comptime otherwise: []const u8) void {
    if (!is_so) @panic(otherwise);
}
