//! Keeps what scoring needs of chunks, each under its id, within a block of memory that it is given
//! once. Pure, and without a lock of its own: `insert` needs the store for itself, all else may
//! run at the same time. It must never take more than that block, nor change a chunk that it keeps.
//!
//! A chunk is kept as the hashes of its terms by position (sequence.zig), never as text. Ids are
//! not kept either: a chunk's key is the 128-bit SipHash (Aumasson and Bernstein, "SipHash: a fast
//! short-input PRF", 2012; 1-3 rounds) of its id under a secret of the store. That two of a billion
//! ids have one key has odds of 1 to 10^20, and who does not know the secret cannot choose ids
//! that do.
//!
//! Chunks stand in a ring in the order in which they came. Where one finds no room, the oldest
//! goes, or, if it was found since, to the front of the ring (CLOCK: Corbató, "A Paging Experiment
//! with the Multics System", 1968). So no byte is lost between chunks, and nothing is allocated.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Entry = @import("entry.zig").Entry;
const Finder = @import("scan_sequence.zig").Finder;
const Gathering = @import("scan.zig").Gathering;
const Match = @import("scan.zig").Match;
const Sequence = @import("sequence.zig").Sequence;
const unfilled = @import("unfilled.zig").unfilled;
const SipHash = std.crypto.auth.siphash.SipHash128(1, 3);

pub const Key = Entry.Key;
pub const Secret = [SipHash.key_length]u8;

/// Of the memory that a store is given.
pub const alignment = Entry.alignment;
/// Of it more cannot be used: places in the ring are counted in units, 32 bits wide.
pub const max_memory = 1 << 37;

/// Bytes of memory for each slot of the index. Where chunks take less than 4/3 of it on average,
/// slots run out before the ring is full; 1 KiB of text takes about 1 KiB.
const bytes_per_slot = 256;
const unit = Entry.alignment;
/// How many chunks ahead `scan` fetches into the cache.
const lookahead = 4;
/// How many chunks one `insert` moves at most, which bounds its time.
const max_second_chances = 32;

pub const Usage = struct { bytes: u64, chunks: u64, evictions: u64 };

/// Where an entry stands in the ring, under the highest bits of its key.
const Slot = struct {
    /// 0 for a free slot, else one more than the entry's unit.
    place: u32,
    /// The tag above one bit: whether it was found since it came to the front. Readers set it while
    /// others read it.
    mark: std.atomic.Value(u32),

    const Tag = u31;
    const free: Slot = .{ .place = 0, .mark = .init(0) };

    fn tagOf(key: Key) Tag {
        return @truncate(key >> (@bitSizeOf(Key) - @bitSizeOf(Tag)));
    }

    fn tag(slot: *const Slot) Tag {
        return @truncate(slot.mark.load(.monotonic) >> 1);
    }

    fn isFound(slot: *const Slot) bool {
        return slot.mark.load(.monotonic) & 1 == 1;
    }

    /// Writes only where it changes something, so that readers share the cache line.
    fn setFound(slot: *Slot) void {
        if (!slot.isFound()) _ = slot.mark.fetchOr(1, .monotonic);
    }
};

pub const Store = struct {
    secret: Secret,
    /// Open addressing with linear probing, never full.
    slots: []Slot,
    ring: []align(alignment) u8,
    /// Chunks stand in ring[tail..head], or, once wrapped, in ring[tail..end] and ring[0..head].
    head: usize = 0,
    tail: usize = 0,
    end: usize = 0,
    is_wrapped: bool = false,
    count: usize = 0,
    evictions: u64 = 0,

    /// The memory holds zeros and outlives the store; nobody else touches it.
    pub fn init(memory: []align(alignment) u8, secret: Secret) Store {
        std.debug.assert(memory.len <= max_memory);
        const slot_count = memory.len / bytes_per_slot;
        const index_bytes = std.mem.alignForward(usize, slot_count * @sizeOf(Slot), unit);
        const slots: [*]Slot = @ptrCast(memory);
        const ring: []align(alignment) u8 = @alignCast(memory[@min(index_bytes, memory.len)..]);
        const ring_bytes = std.mem.alignBackward(usize, ring.len, unit);
        return .{ .secret = secret, .slots = slots[0..slot_count], .ring = ring[0..ring_bytes] };
    }

    pub fn keyOf(store: *const Store, id: []const u8) Key {
        return SipHash.toInt(id, &store.secret);
    }

    pub fn usage(store: *const Store) Usage {
        const ring_bytes = if (store.is_wrapped)
            store.ring.len - (store.tail - store.head)
        else
            store.head - store.tail;
        const index_bytes = std.mem.sliceAsBytes(store.slots).len;
        return .{
            .bytes = index_bytes + ring_bytes,
            .chunks = store.count,
            .evictions = store.evictions,
        };
    }

    /// Whether the chunk is kept; if so, it will not be the next to go.
    pub fn find(store: *const Store, key: Key) bool {
        const slot = store.slotOf(key) orelse return false;
        slot.setFound();
        return true;
    }

    /// Starts to fetch what `find` will read.
    pub fn prefetch(store: *const Store, key: Key) void {
        if (store.slots.len > 0) @prefetch(&store.slots[store.home(Slot.tagOf(key))], .{});
    }

    /// Gathers the query's terms in each chunk, in the order of the keys, and says which are not
    /// kept; those count as empty.
    pub fn scan(
        store: *const Store,
        arena: Allocator,
        keys: []const Key,
        finder: *const Finder,
        gathering: *Gathering,
        is_missing: []bool,
    ) Allocator.Error!void {
        std.debug.assert(is_missing.len == keys.len);
        const entries = try unfilled(arena, ?*const Entry, keys.len);
        for (keys) |key| store.prefetch(key);
        for (keys, entries) |key, *entry| {
            entry.* = store.likelyEntry(key);
            if (entry.*) |likely| likely.prefetchStart();
        }
        for (keys, entries, is_missing, 0..) |key, likely, *missing, index| {
            if (index + lookahead < entries.len) {
                if (entries[index + lookahead]) |entry| entry.prefetchRest();
            }
            const entry = if (likely != null and likely.?.key == key)
                likely
            else if (store.slotOf(key)) |slot|
                store.entryAt(slot.place)
            else
                null;
            missing.* = entry == null;
            if (entry) |kept| {
                try kept.scan(arena, finder, gathering);
            } else {
                gathering.end(0);
                gathering.end(0);
            }
        }
    }

    /// Keeps a chunk, unless it is kept already or takes more than the whole ring.
    pub fn insert(store: *Store, key: Key, title: Sequence, text: Sequence) void {
        const entry: Entry = .init(key, title, text);
        const max_count = store.slots.len / 4 * 3;
        const byte_size = entry.byteSize();
        if (byte_size > store.ring.len or max_count == 0) return;
        if (store.slotOf(key) != null) return;

        var chances: u32 = max_second_chances;
        while (store.count >= max_count) store.retireOldest(&chances);
        const offset = while (true) {
            break store.claim(byte_size) orelse {
                store.retireOldest(&chances);
                continue;
            };
        };
        const place: u32 = @intCast(offset / unit + 1);
        const kept = @constCast(store.entryAt(place));
        kept.* = entry;
        kept.write(title, text);
        store.link(key, place);
        store.count += 1;
    }

    /// Takes room at the front of the ring, or null where there is none.
    fn claim(store: *Store, byte_size: usize) ?usize {
        const limit = if (store.is_wrapped) store.tail else store.ring.len;
        if (limit - store.head < byte_size) {
            if (store.is_wrapped or store.tail < byte_size) return null;
            store.end = store.head;
            store.is_wrapped = true;
            store.head = 0;
        }
        defer store.head += byte_size;
        return store.head;
    }

    /// Gives back the room of the oldest chunk.
    fn release(store: *Store, byte_size: usize) void {
        store.tail += byte_size;
        if (store.is_wrapped and store.tail == store.end) {
            store.tail = 0;
            store.is_wrapped = false;
        }
        if (!store.is_wrapped and store.tail == store.head) {
            store.head = 0;
            store.tail = 0;
        }
    }

    /// Moves the oldest chunk to the front if it was found and has a chance left, else drops it.
    fn retireOldest(store: *Store, chances: *u32) void {
        std.debug.assert(store.count > 0);
        const offset = store.tail;
        const entry = store.entryAt(@intCast(offset / unit + 1));
        const byte_size = entry.byteSize();
        const slot = store.slotOf(entry.key).?;
        store.release(byte_size);
        if (slot.isFound() and chances.* > 0) {
            chances.* -= 1;
            // Its own room is free now and reaches to the front, or to the ring's beginning.
            const front = store.claim(byte_size).?;
            @memmove(store.ring[front..][0..byte_size], store.ring[offset..][0..byte_size]);
            slot.place = @intCast(front / unit + 1);
            slot.mark.store(@as(u32, slot.tag()) << 1, .monotonic);
        } else {
            store.unlink(slot);
            store.count -= 1;
            store.evictions += 1;
        }
    }

    fn entryAt(store: *const Store, place: u32) *const Entry {
        const offset = @as(usize, place - 1) * unit;
        return @ptrCast(@alignCast(store.ring[offset..].ptr));
    }

    /// The first slot at which a tag is looked for.
    fn home(store: *const Store, tag: Slot.Tag) usize {
        return @intCast(@as(u64, tag) * store.slots.len >> @bitSizeOf(Slot.Tag));
    }

    fn next(store: *const Store, index: usize) usize {
        return if (index + 1 == store.slots.len) 0 else index + 1;
    }

    fn slotOf(store: *const Store, key: Key) ?*Slot {
        if (store.slots.len == 0) return null;
        const tag = Slot.tagOf(key);
        var index = store.home(tag);
        while (store.slots[index].place != 0) : (index = store.next(index)) {
            const slot = &store.slots[index];
            if (slot.tag() == tag and store.entryAt(slot.place).key == key) return slot;
        }
        return null;
    }

    /// The entry of the first slot with the key's tag, before anything of the entry was read. It is
    /// the key's but for odds of one to thousands, and then counts as found.
    fn likelyEntry(store: *const Store, key: Key) ?*const Entry {
        if (store.slots.len == 0) return null;
        const tag = Slot.tagOf(key);
        var index = store.home(tag);
        while (store.slots[index].place != 0) : (index = store.next(index)) {
            const slot = &store.slots[index];
            if (slot.tag() != tag) continue;
            slot.setFound();
            return store.entryAt(slot.place);
        }
        return null;
    }

    fn link(store: *Store, key: Key, place: u32) void {
        const tag = Slot.tagOf(key);
        var index = store.home(tag);
        while (store.slots[index].place != 0) index = store.next(index);
        store.slots[index] = .{ .place = place, .mark = .init(@as(u32, tag) << 1) };
    }

    /// Frees a slot and moves up those behind it, so that every slot can be reached from its home.
    fn unlink(store: *Store, slot: *Slot) void {
        var hole = (@intFromPtr(slot) - @intFromPtr(store.slots.ptr)) / @sizeOf(Slot);
        var index = store.next(hole);
        while (store.slots[index].place != 0) : (index = store.next(index)) {
            const its_home = store.home(store.slots[index].tag());
            if (store.distance(its_home, index) < store.distance(hole, index)) continue;
            store.slots[hole] = store.slots[index];
            hole = index;
        }
        store.slots[hole] = .free;
    }

    fn distance(store: *const Store, from: usize, to: usize) usize {
        return if (to >= from) to - from else to + store.slots.len - from;
    }
};

const testing = std.testing;
const Reader = @import("sequence.zig").Reader;
const Query = @import("query.zig").Query;

const test_secret: Secret = @splat(7);

const TestStore = struct {
    arena: std.heap.ArenaAllocator,
    store: Store,

    fn init(byte_size: usize) !TestStore {
        var arena: std.heap.ArenaAllocator = .init(testing.allocator);
        errdefer arena.deinit();
        const memory = try arena.allocator().alignedAlloc(u8, .fromByteUnits(alignment), byte_size);
        @memset(memory, 0);
        return .{ .store = .init(memory, test_secret), .arena = arena };
    }

    fn deinit(kept: *TestStore) void {
        kept.arena.deinit();
    }

    fn put(kept: *TestStore, id: []const u8, title: []const u8, text: []const u8) !void {
        const allocator = testing.allocator;
        var titles: Reader = .{};
        defer titles.deinit(allocator);
        var texts: Reader = .{};
        defer texts.deinit(allocator);
        const sequences = .{ try titles.read(allocator, title), try texts.read(allocator, text) };
        kept.store.insert(kept.store.keyOf(id), sequences[0], sequences[1]);
    }

    fn has(kept: *TestStore, id: []const u8) bool {
        return kept.store.find(kept.store.keyOf(id));
    }

    /// What the store finds is what reading the texts finds.
    fn expectScan(kept: *TestStore, query_text: []const u8, chunks: []const Chunk) !void {
        var arena_state = std.heap.ArenaAllocator.init(testing.allocator);
        defer arena_state.deinit();
        const arena = arena_state.allocator();
        const query = try Query.init(arena, query_text);
        const finder = try Finder.init(arena, &query);
        const keys = try arena.alloc(Key, chunks.len);
        for (keys, chunks) |*key, chunk| key.* = kept.store.keyOf(chunk.id);
        var found = try Gathering.init(arena, chunks.len);
        const is_missing = try arena.alloc(bool, chunks.len);
        try kept.store.scan(arena, keys, &finder, &found, is_missing);

        var expected = try Gathering.init(arena, chunks.len);
        for (chunks) |chunk| {
            for ([_][]const u8{ chunk.title, chunk.text }) |field| {
                var reader: Reader = .{};
                const sequence = try reader.read(arena, field);
                try scanOneByOne(arena, &query, sequence, &expected);
            }
        }
        for (chunks, is_missing) |chunk, missing| {
            try testing.expectEqual(chunk.title.len + chunk.text.len == 0, missing);
        }
        try testing.expectEqualSlices(Match, expected.matches.items, found.matches.items);
        try testing.expectEqualSlices(u32, expected.lengths.items, found.lengths.items);
    }
};

/// The oracle: one term after the other.
fn scanOneByOne(
    arena: Allocator,
    query: *const Query,
    sequence: Sequence,
    gathering: *Gathering,
) !void {
    for (sequence.hashes, sequence.positions) |hash, position| {
        const ordinal = query.find(hash) orelse continue;
        try gathering.matches.append(arena, .{
            .position = position,
            .field = gathering.field(),
            .ordinal = ordinal,
        });
    }
    gathering.end(sequence.length);
}

const Chunk = struct { id: []const u8, title: []const u8 = "", text: []const u8 = "" };

test "what was put is scanned as if it were read" {
    var kept = try TestStore.init(1 << 16);
    defer kept.deinit();
    const chunks = [_]Chunk{
        .{ .id = "a", .title = "Red foxes", .text = "the dataNode of dn-1.example and a red DataNode" },
        .{ .id = "nobody" },
        .{ .id = "b", .text = "node fox NN-HA-42, red NN-HA-42/data; " ** 40 },
        .{ .id = "c", .title = "of the", .text = "NN-HA-42 fox" },
        .{ .id = "d", .title = "data_node", .text = "." },
    };
    for (chunks) |chunk| if (chunk.text.len > 0) try kept.put(chunk.id, chunk.title, chunk.text);
    for ([_][]const u8{
        "",
        "fox",
        "red foxes and data nodes",
        "NN-HA-42 dataNode data_node",
        "NN-HA-42 fox b c d e f g h j k l m n o p q r red data node example 42 1",
    }) |query| try kept.expectScan(query, &chunks);
    try testing.expectEqual(4, kept.store.usage().chunks);
}

test "positions beyond one byte and beyond two" {
    var kept = try TestStore.init(1 << 21);
    defer kept.deinit();
    const end = "red fox NN-HA-42";
    const chunks = [_]Chunk{
        .{ .id = "most of one", .text = "den " ** 250 ++ end },
        .{ .id = "two", .title = end, .text = "den " ** 254 ++ end },
        .{ .id = "most of two", .text = "the " ** 65_530 ++ end },
        .{ .id = "four", .text = "the " ** 65_534 ++ end },
        .{ .id = "a long title", .title = "a " ** 300 ++ end, .text = end },
    };
    for (chunks) |chunk| try kept.put(chunk.id, chunk.title, chunk.text);
    try testing.expectEqual(chunks.len, kept.store.usage().chunks);
    try kept.expectScan("red fox NN-HA-42", &chunks);
}

test "a chunk is kept once and never changed" {
    var kept = try TestStore.init(1 << 14);
    defer kept.deinit();
    try kept.put("a", "", "fox");
    const usage = kept.store.usage();
    try kept.put("a", "", "another text of the same id");
    try testing.expectEqual(usage, kept.store.usage());
    try kept.expectScan("fox text", &.{.{ .id = "a", .text = "fox" }});
}

test "the oldest goes first, unless it was found" {
    var kept = try TestStore.init(1 << 14);
    defer kept.deinit();
    const text = "w1 " ** 300;
    try kept.put("a", "", text);
    try kept.put("b", "", text);
    while (kept.store.usage().evictions == 0) {
        var id: [8]u8 = undefined;
        _ = kept.has("a");
        try kept.put(std.fmt.bufPrint(&id, "{d}", .{kept.store.count}) catch unreachable, "", text);
    }
    try testing.expect(kept.has("a"));
    try testing.expect(!kept.has("b"));
}

test "what is greater than the store, or than nothing, is not kept" {
    for ([_]usize{ 0, 1, 31, 32, 255, 256, 511, 1024, 2000 }) |byte_size| {
        var kept = try TestStore.init(byte_size);
        defer kept.deinit();
        try kept.put("a", "", "fox " ** 1000);
        try testing.expect(!kept.has("a"));
        try testing.expectEqual(0, kept.store.usage().chunks);
        try testing.expect(kept.store.usage().bytes <= byte_size);
        try kept.expectScan("fox", &.{.{ .id = "a" }});
    }
}

test "random chunks of random sizes: the bound holds, the index finds all that stand in the ring" {
    var random_state = std.Random.DefaultPrng.init(11);
    const random = random_state.random();
    for ([_]usize{ 1 << 12, 20_000, 1 << 16 }) |byte_size| {
        var kept = try TestStore.init(byte_size);
        defer kept.deinit();
        const store = &kept.store;
        const hashes: [3000]u32 = @splat(9);
        const positions: [3000]u32 = @splat(0);
        for (0..20_000) |_| {
            var id: [8]u8 = undefined;
            std.mem.writeInt(u64, &id, random.uintLessThan(u64, 400), .little);
            const key = store.keyOf(&id);
            if (random.boolean()) {
                _ = store.find(key);
                continue;
            }
            const is_long = random.uintLessThan(u8, 20) == 0;
            const words = random.uintLessThan(usize, if (is_long) 3000 else 120);
            store.insert(key, .nothing, .{
                .hashes = hashes[0..words],
                .positions = positions[0..words],
                .length = random.uintLessThan(u32, 1 << 17),
            });
            try expectConsistent(store, byte_size);
        }
        try testing.expect(store.evictions > 100);
        try testing.expect(store.count > 1);
    }
}

/// Walks the ring from the oldest chunk to the newest.
fn expectConsistent(store: *Store, byte_size: usize) !void {
    const usage = store.usage();
    try testing.expect(usage.bytes <= byte_size);
    var seen: usize = 0;
    var bytes: usize = 0;
    var offset = store.tail;
    while (seen < store.count) : (seen += 1) {
        if (store.is_wrapped and offset == store.end) offset = 0;
        const entry = store.entryAt(@intCast(offset / unit + 1));
        const slot = store.slotOf(entry.key) orelse return error.TestLostChunk;
        try testing.expectEqual(offset, @as(usize, slot.place - 1) * unit);
        offset += entry.byteSize();
        bytes += entry.byteSize();
    }
    try testing.expectEqual(store.head, offset);
    var used: usize = 0;
    for (store.slots) |slot| used += @intFromBool(slot.place != 0);
    try testing.expectEqual(store.count, used);
    const index_bytes = std.mem.sliceAsBytes(store.slots).len;
    const gap = if (store.is_wrapped) store.ring.len - store.end else 0;
    try testing.expectEqual(usage.bytes, index_bytes + bytes + gap);
}
