//! sluice_store_*: stores that keep what scoring needs of chunks, for any number of threads. It
//! must never hold a store's lock while it does what needs no store: reading texts, and ranking.

const std = @import("std");
const Allocator = std.mem.Allocator;
const core = @import("../core/store.zig");
const open_stores = @import("open_stores.zig");
const scan = @import("../core/scan.zig");
const score = @import("score.zig");
const status = @import("../status.zig");
const unfilled = @import("../core/unfilled.zig").unfilled;
const text_file = @import("text.zig");
const Failure = status.Failure;
const Finder = @import("../core/scan_sequence.zig").Finder;
const OpenStore = open_stores.OpenStore;
const Query = @import("../core/query.zig").Query;
const Reader = @import("../core/sequence.zig").Reader;
const Scratch = @import("scratch.zig").Scratch;
const Text = text_file.Text;
const Texts = text_file.Texts;

pub const layouts = .{ Ids, Usage };

/// How many chunks are looked at before others get the lock.
const chunks_a_turn = 1024;

pub const Ids = extern struct {
    bytes: ?[*]const u8,
    byte_count: u64,
    count: u64,
};

pub const Usage = extern struct {
    bytes: u64,
    chunks: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
};

export fn sluice_store_open(max_bytes: u64, handle: ?*align(1) u64) u32 {
    return status.codeOf(open(max_bytes, handle));
}

export fn sluice_store_close(handle: u64) u32 {
    return status.codeOf(open_stores.close(handle));
}

export fn sluice_store_missing(
    handle: u64,
    ids: ?*align(1) const Ids,
    is_missing: ?[*]u8,
) u32 {
    return status.codeOf(missing(handle, ids, is_missing));
}

export fn sluice_store_put(
    handle: u64,
    ids: ?*align(1) const Ids,
    titles: ?*align(1) const Texts,
    texts: ?*align(1) const Texts,
) u32 {
    return status.codeOf(put(handle, ids, titles, texts));
}

export fn sluice_store_score(
    handle: u64,
    query: ?*align(1) const Text,
    ids: ?*align(1) const Ids,
    similarities: ?[*]align(1) const f32,
    options: ?*align(1) const score.Options,
    statistics: ?*align(1) const score.Statistics,
    scores: ?*align(1) score.Scores,
    is_missing: ?[*]u8,
) u32 {
    return status.codeOf(
        scoreKept(handle, query, ids, similarities, options, statistics, scores, is_missing),
    );
}

export fn sluice_store_usage(handle: u64, usage: ?*align(1) Usage) u32 {
    return status.codeOf(usageOf(handle, usage));
}

fn open(max_bytes: u64, output: ?*align(1) u64) Failure!void {
    const out = output orelse return error.NullPointer;
    out.* = try open_stores.open(max_bytes);
}

fn missing(handle: u64, given_ids: ?*align(1) const Ids, output: ?[*]u8) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const open_store = try open_stores.acquire(handle);
    defer open_stores.release(open_store);
    const keys = try keysOf(scratch.allocator(), &open_store.store, given_ids);
    const is_missing = try missingOf(output, keys.len);

    var misses: usize = 0;
    var rest = keys;
    while (rest.len > 0) {
        const turn = rest[0..@min(rest.len, chunks_a_turn)];
        open_store.lockShared();
        defer open_store.unlockShared();
        for (turn) |key| open_store.store.prefetch(key);
        for (turn, is_missing[keys.len - rest.len ..][0..turn.len]) |key, *value| {
            const found = open_store.store.find(key);
            value.* = @intFromBool(!found);
            misses += @intFromBool(!found);
        }
        rest = rest[turn.len..];
    }
    open_store.count(keys.len - misses, misses);
}

fn put(
    handle: u64,
    given_ids: ?*align(1) const Ids,
    given_titles: ?*align(1) const Texts,
    given_texts: ?*align(1) const Texts,
) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const arena = scratch.allocator();
    const open_store = try open_stores.acquire(handle);
    defer open_stores.release(open_store);
    const keys = try keysOf(arena, &open_store.store, given_ids);
    const texts = try text_file.textsOf((given_texts orelse return error.NullPointer).*, keys.len);
    const titles = if (given_titles) |block| try text_file.titlesOf(block.*, keys.len) else null;

    var title_reader: Reader = .{};
    var text_reader: Reader = .{};
    for (keys, 0..) |key, index| {
        if (isKept(open_store, key)) continue;
        const title = if (titles) |block| block.get(index) else "";
        const title_sequence = try title_reader.read(arena, title);
        const text_sequence = try text_reader.read(arena, texts.get(index));
        open_store.lockAlone();
        defer open_store.unlockAlone();
        open_store.store.insert(key, title_sequence, text_sequence);
    }
}

fn isKept(open_store: *OpenStore, key: core.Key) bool {
    open_store.lockShared();
    defer open_store.unlockShared();
    return open_store.store.find(key);
}

fn scoreKept(
    handle: u64,
    given_query: ?*align(1) const Text,
    given_ids: ?*align(1) const Ids,
    given_similarities: ?[*]align(1) const f32,
    options: ?*align(1) const score.Options,
    statistics: ?*align(1) const score.Statistics,
    output: ?*align(1) score.Scores,
    missing_output: ?[*]u8,
) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const arena = scratch.allocator();
    const open_store = try open_stores.acquire(handle);
    defer open_stores.release(open_store);
    const keys = try keysOf(arena, &open_store.store, given_ids);
    const query_bytes = try text_file.queryOf(given_query);
    const similarities = try score.similaritiesOf(given_similarities, keys.len);
    const settings = try score.settingsOf(options);
    const columns = try score.columnsOf(output, keys.len);
    const is_missing = try missingOf(missing_output, keys.len);
    const query = try Query.init(arena, query_bytes);
    const collection = try score.collectionOf(arena, statistics, &query);

    const found_missing = try arena.alloc(bool, keys.len);
    const gathering = try gather(arena, open_store, keys, &query, found_missing);
    try score.rank(arena, &query, gathering.found(), similarities, settings, collection, columns);
    for (is_missing, found_missing) |*value, was_missing| value.* = @intFromBool(was_missing);
    const misses = std.mem.countScalar(bool, found_missing, true);
    open_store.count(keys.len - misses, misses);
}

fn gather(
    arena: Allocator,
    open_store: *OpenStore,
    keys: []const core.Key,
    query: *const Query,
    is_missing: []bool,
) Allocator.Error!scan.Gathering {
    const finder = try Finder.init(arena, query);
    var gathering = try scan.Gathering.init(arena, keys.len);
    var start: usize = 0;
    while (start < keys.len) {
        const end = @min(keys.len, start + chunks_a_turn);
        open_store.lockShared();
        defer open_store.unlockShared();
        const turn = keys[start..end];
        try open_store.store.scan(arena, turn, &finder, &gathering, is_missing[start..end]);
        start = end;
    }
    return gathering;
}

fn usageOf(handle: u64, output: ?*align(1) Usage) Failure!void {
    const out = output orelse return error.NullPointer;
    const open_store = try open_stores.acquire(handle);
    defer open_stores.release(open_store);
    open_store.lockShared();
    defer open_store.unlockShared();
    const usage = open_store.store.usage();
    out.* = .{
        .bytes = usage.bytes,
        .chunks = usage.chunks,
        .hits = open_store.hits.load(.monotonic),
        .misses = open_store.misses.load(.monotonic),
        .evictions = usage.evictions,
    };
}

/// The key of each id of a block.
fn keysOf(
    arena: Allocator,
    store: *const core.Store,
    pointer: ?*align(1) const Ids,
) Failure![]const core.Key {
    const ids = (pointer orelse return error.NullPointer).*;
    if (ids.count > text_file.max_texts) return error.TooManyCandidates;
    const block: Text = .{ .bytes = ids.bytes, .byte_count = ids.byte_count };
    const bytes = try text_file.textOf(&block);
    if (ids.count == 0) return if (bytes.len == 0) &.{} else error.IdsMalformed;

    const keys = try unfilled(arena, core.Key, @intCast(ids.count));
    var start: usize = 0;
    for (keys, 1..) |*key, number| {
        const separator = std.mem.findScalarPos(u8, bytes, start, '\n');
        if ((separator == null) != (number == keys.len)) return error.IdsMalformed;
        const id = bytes[start .. separator orelse bytes.len];
        if (id.len == 0) return error.IdsMalformed;
        key.* = store.keyOf(id);
        start += id.len + 1;
    }
    return keys;
}

fn missingOf(pointer: ?[*]u8, count: usize) status.Misuse![]u8 {
    if (count == 0) return &.{};
    const is_missing = pointer orelse return error.NullPointer;
    return is_missing[0..count];
}

test {
    _ = open_stores;
    _ = @import("scratch.zig");
}
