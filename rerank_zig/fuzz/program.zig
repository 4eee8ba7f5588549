//! Runs the calls that an input stands for, through the C ABI as the header declares it, and holds
//! every answer against what the header promises. It panics where a promise is broken, and must
//! never break one of the caller's itself.

const builtin = @import("builtin");
const std = @import("std");
const c = @import("header");
const Arguments = @import("arguments.zig").Arguments;
const Input = @import("input.zig").Input;
const Room = @import("rooms.zig").Room;
const Rooms = @import("rooms.zig").Rooms;
const Scores = @import("scores.zig").Scores;
const expect = @import("rooms.zig").expect;
const rooms_file = @import("rooms.zig");

const max_stores = 64;
const store_bytes = [_]u64{ 0, 1, 31, 255, 256, 1 << 10, 2000, 1 << 12, 1 << 13, 1 << 14, 1 << 16 };

/// How often each status came up.
pub const Tally = struct {
    statuses: [c.SLUICE_STATUS_COUNT]u64 = @splat(0),
    calls: u64 = 0,
};

const Call = enum(u4) {
    analyze,
    highlight,
    score,
    count_words,
    group_duplicates,
    agreement,
    open,
    close,
    put,
    missing,
    score_kept,
    usage,
    _,
};

pub fn run(bytes: []const u8, rooms: *Rooms, tally: *Tally) void {
    var program: Program = .{
        .tally = tally,
        .arguments = .{ .input = .init(bytes), .rooms = rooms },
    };
    for (0..program.arguments.input.max_calls) |_| {
        if (program.arguments.input.isEmpty()) break;
        program.step();
        expect(rooms.reset(), "memory beside a room was written to");
    }
    for (&program.stores) |*store| if (store.is_open) program.closeStore(store);
}

const Program = struct {
    arguments: Arguments,
    tally: *Tally,
    stores: [2]Store = @splat(.{}),

    const Store = struct {
        handle: u64 = 0,
        is_open: bool = false,
        max_bytes: u64 = 0,
        looked_up: u64 = 0,
    };

    fn step(program: *Program) void {
        const input = &program.arguments.input;
        const choice = input.byte();
        program.arguments.is_spoilt = choice >= 0xA0;
        const starves = choice >= 0xF0 and !builtin.link_libc;
        if (starves) starve(true);
        defer if (starves) starve(false);
        switch (@as(Call, @enumFromInt(choice & 0xF))) {
            .analyze => program.analyze(),
            .highlight => program.highlight(),
            .score => program.score(),
            .count_words => program.countWords(),
            .group_duplicates => program.groupDuplicates(),
            .agreement => program.agree(),
            .open => program.open(),
            .close => program.close(),
            .put => program.put(),
            .missing => program.missing(),
            .score_kept => program.scoreKept(),
            .usage => program.usage(),
            _ => program.surround(),
        }
    }

    /// Counts an answer, and says whether it is OK. A call that was not spoilt is answered by that
    /// or by what is allowed.
    fn answer(program: *Program, status: u32, allowed: []const u32) bool {
        expect(status < c.SLUICE_STATUS_COUNT, "unknown status");
        program.tally.statuses[status] += 1;
        program.tally.calls += 1;
        if (program.arguments.is_spoilt or status == c.SLUICE_OK) return status == c.SLUICE_OK;
        if (std.mem.indexOfScalar(u32, allowed, status) == null) {
            const message = c.sluice_rerank_status_message(status);
            std.debug.panic("a right call was answered: {s}", .{message});
        }
        return false;
    }

    /// What needs no arguments to speak of: messages, and more stores than there may be.
    fn surround(program: *Program) void {
        const input = &program.arguments.input;
        if (input.seldom()) program.openTooMany();
        const status = input.number(u32);
        const message = std.mem.span(c.sluice_rerank_status_message(status));
        expect(message.len > 0, "no message");
        expect(c.sluice_rerank_abi_version() == c.SLUICE_RERANK_ABI_VERSION, "version");
    }

    fn analyze(program: *Program) void {
        const arguments = &program.arguments;
        const text = arguments.text();
        var needed: c.sluice_terms = std.mem.zeroes(c.sluice_terms);
        var status = c.sluice_rerank_analyze(&text, &needed);
        if (!program.answer(status, &.{c.SLUICE_BUFFER_TOO_SMALL})) {
            if (status != c.SLUICE_BUFFER_TOO_SMALL) return;
        }
        expect(status != c.SLUICE_OK, "terms fit in nothing");
        expect(needed.byte_count <= rooms_file.max_bytes, "more terms than a text has");

        var terms = needed;
        terms.byte_capacity = arguments.capacity(@intCast(needed.byte_count));
        terms.offset_capacity = arguments.capacity(@intCast(needed.term_count + 1));
        terms.term_count = 77;
        const bytes = arguments.output(&terms.bytes, @intCast(terms.byte_capacity));
        const offsets = arguments.output(&terms.offsets, @intCast(4 * terms.offset_capacity));
        status = c.sluice_rerank_analyze(&text, &terms);
        if (!program.answer(status, &.{})) {
            expect(bytes.isBlank() and offsets.isBlank(), "terms were written, but refused");
            const is_small = status == c.SLUICE_BUFFER_TOO_SMALL;
            if (!is_small) return;
        }
        expect(terms.byte_count == needed.byte_count, "another count of bytes");
        expect(terms.term_count == needed.term_count, "another count of terms");
        if (status != c.SLUICE_OK) return;
        var before: u32 = 0;
        for (0..@intCast(terms.term_count + 1)) |index| {
            const end = offsets.number(u32, index);
            expect(if (index == 0) end == 0 else end > before, "an empty term");
            before = end;
        }
        expect(before == terms.byte_count, "terms do not fill their bytes");
    }

    fn highlight(program: *Program) void {
        const arguments = &program.arguments;
        const query = arguments.text();
        const count = arguments.textCount();
        const texts = arguments.texts(count);
        var spans: c.sluice_spans = std.mem.zeroes(c.sluice_spans);
        spans.text_capacity = arguments.capacity(count);
        const text_capacity: usize = @intCast(spans.text_capacity);
        const offsets = arguments.output(&spans.offsets, 4 * (text_capacity + 1));
        spans.count = 77;
        var status = c.sluice_rerank_highlight(&query, &texts, &spans);
        const allowed = [_]u32{ c.SLUICE_BUFFER_TOO_SMALL, c.SLUICE_QUERY_TOO_LONG };
        const is_counted = program.answer(status, &allowed) or
            (status == c.SLUICE_BUFFER_TOO_SMALL and text_capacity >= texts.offset_count -| 1);
        if (!is_counted) {
            return expect(offsets.isBlank() and spans.count == 77, "spans were counted, but refused");
        }
        const needed = spans.count;
        expect((needed > 0) == (status != c.SLUICE_OK), "spans fit in nothing");
        expect(needed <= texts.byte_count, "more spans than bytes");

        spans.capacity = arguments.capacity(@intCast(@min(needed, rooms_file.max_bytes / 8)));
        spans.count = 77;
        const room = arguments.output(&spans.spans, @intCast(8 * spans.capacity));
        status = c.sluice_rerank_highlight(&query, &texts, &spans);
        if (!program.answer(status, &allowed) and status != c.SLUICE_BUFFER_TOO_SMALL) {
            return expect(room.isBlank() and spans.count == 77, "spans were written, but refused");
        }
        expect(spans.count == needed, "another count of spans");
        expect((needed <= spans.capacity) == (status == c.SLUICE_OK), "spans fit or not");
        var start = offsets.number(u32, 0);
        expect(start == 0, "the first offset");
        for (0..@intCast(texts.offset_count - 1)) |index| {
            const end = offsets.number(u32, index + 1);
            expect(end >= start, "offsets descend");
            const byte_count = texts.offsets[index + 1] - texts.offsets[index];
            expectSpans(room, start, @intCast(@min(end, spans.capacity)), byte_count);
            start = end;
        }
        expect(start == needed, "the last offset");
    }

    fn countWords(program: *Program) void {
        const arguments = &program.arguments;
        const count = arguments.textCount();
        const texts = arguments.texts(count);
        const titles = arguments.titles(count);
        const has_titles = titles.offset_count > 0;
        var counts: c.sluice_word_counts = std.mem.zeroes(c.sluice_word_counts);
        counts.text_capacity = arguments.capacity(count);
        const capacity: usize = @intCast(counts.text_capacity);
        const offsets = arguments.output(&counts.offsets, 4 * (capacity + 1));
        const text_words = arguments.output(&counts.text_words, 4 * capacity);
        const title_words = arguments.output(&counts.title_words, 4 * capacity);
        const given_titles = if (has_titles) &titles else null;
        var status = c.sluice_rerank_count_words(given_titles, &texts, &counts);
        const is_counted = program.answer(status, &.{c.SLUICE_BUFFER_TOO_SMALL}) or
            (status == c.SLUICE_BUFFER_TOO_SMALL and capacity >= texts.offset_count -| 1);
        if (!is_counted) {
            const are_blank = offsets.isBlank() and text_words.isBlank() and title_words.isBlank();
            const is_excused = status == c.SLUICE_OUT_OF_MEMORY;
            return expect(are_blank or is_excused, "counts were written, but refused");
        }

        const needed = counts.hash_count;
        counts.hash_capacity = arguments.capacity(@intCast(@min(needed, rooms_file.max_bytes / 4)));
        counts.hash_count = 77;
        const hashes = arguments.output(&counts.hashes, @intCast(4 * counts.hash_capacity));
        status = c.sluice_rerank_count_words(given_titles, &texts, &counts);
        if (!program.answer(status, &.{c.SLUICE_BUFFER_TOO_SMALL})) {
            if (status != c.SLUICE_BUFFER_TOO_SMALL) return;
        }
        expect(counts.hash_count == needed, "another count of hashes");
        expect((needed <= counts.hash_capacity) == (status == c.SLUICE_OK), "hashes fit or not");
        if (status != c.SLUICE_OK) return;
        const given: usize = @intCast(texts.offset_count - 1);
        var start = offsets.number(u32, 0);
        expect(start == 0, "the first offset");
        for (0..given) |index| {
            const end = offsets.number(u32, index + 1);
            expect(end >= start, "offsets descend");
            var before: u32 = 0;
            for (start..end) |place| {
                const hash = hashes.number(u32, place);
                expect(hash > before, "hashes of a text do not ascend");
                before = hash;
            }
            const words = text_words.number(u32, index) + title_words.number(u32, index);
            expect(words > 0 or start == end, "terms without words");
            start = end;
        }
        expect(start == needed, "the last offset");
    }

    fn groupDuplicates(program: *Program) void {
        const arguments = &program.arguments;
        const count = arguments.textCount();
        const texts = arguments.texts(count);
        var resemblance = (@as(f64, @floatFromInt(arguments.input.byte())) + 1) / 256;
        if (arguments.spoils()) resemblance = arguments.input.float();
        const capacity = arguments.capacity(count);
        var pointer: [*c]i32 = null;
        const leaders = arguments.output(&pointer, 4 * capacity);
        const status = c.sluice_rerank_group_duplicates(&texts, resemblance, pointer, capacity);
        if (!program.answer(status, &.{})) {
            return expect(leaders.isBlank(), "leaders were written, but refused");
        }
        expect(resemblance > 0 and resemblance <= 1, "a resemblance out of range was taken");
        for (0..@intCast(texts.offset_count - 1)) |index| {
            const leader = leaders.number(i32, index);
            expect(leader >= 0 and leader <= index, "a leader that comes later");
            expect(leaders.number(i32, @intCast(leader)) == leader, "a leader that is led");
        }
    }

    fn score(program: *Program) void {
        const arguments = &program.arguments;
        const query = arguments.text();
        const count = arguments.textCount();
        const candidates = candidatesOf(arguments, count);
        const options = arguments.options();
        var statistics: c.sluice_statistics = undefined;
        const known = if (arguments.statistics(&query, &statistics)) &statistics else null;
        var scores = Scores.init(arguments, count);
        const status = c.sluice_rerank_score(&query, &candidates, &options, known, &scores.given);
        if (!program.answer(status, &.{c.SLUICE_QUERY_TOO_LONG})) return scores.expectBlank();
        scores.expectSound(@intCast(candidates.similarity_count));
    }

    fn candidatesOf(arguments: *Arguments, count: usize) c.sluice_candidates {
        var candidates: c.sluice_candidates = undefined;
        candidates.texts = arguments.texts(count);
        candidates.titles = arguments.titles(count);
        arguments.similarities(&candidates.similarities, &candidates.similarity_count, count);
        return candidates;
    }

    /// What a store keeps scores as the texts themselves.
    fn agree(program: *Program) void {
        const arguments = &program.arguments;
        arguments.is_spoilt = false;
        const query = arguments.text();
        const count = arguments.input.byte() % 24;
        const candidates = candidatesOf(arguments, count);
        const options = arguments.options();
        var statistics: c.sluice_statistics = undefined;
        const known = if (arguments.statistics(&query, &statistics)) &statistics else null;
        var read = Scores.init(arguments, count);
        const short_of_memory = [_]u32{ c.SLUICE_QUERY_TOO_LONG, c.SLUICE_OUT_OF_MEMORY };
        var status = c.sluice_rerank_score(&query, &candidates, &options, known, &read.given);
        if (!program.answer(status, &short_of_memory)) return;
        read.expectSound(count);

        var store: Store = .{ .max_bytes = if (arguments.input.is_great) 1 << 20 else 1 << 15 };
        status = c.sluice_store_open(store.max_bytes, &store.handle);
        if (!program.answer(status, &.{c.SLUICE_OUT_OF_MEMORY})) return;
        store.is_open = true;
        defer program.closeStore(&store);
        const ids = arguments.differentIds(count);
        status = c.sluice_store_put(store.handle, &ids, &candidates.titles, &candidates.texts);
        if (!program.answer(status, &short_of_memory)) return;
        var pointer: [*c]u8 = null;
        const is_missing = arguments.output(&pointer, count);
        var kept = Scores.init(arguments, count);
        status = c.sluice_store_score(
            store.handle,
            &query,
            &ids,
            candidates.similarities,
            &options,
            known,
            &kept.given,
            pointer,
        );
        if (!program.answer(status, &short_of_memory)) return;
        expect(std.mem.allEqual(u8, is_missing.bytes, 0), "a chunk that was put is missing");
        for (read.columns, kept.columns) |of_texts, of_chunks| {
            expect(std.mem.eql(u8, of_texts.bytes, of_chunks.bytes), "kept chunks score otherwise");
        }
        expect(read.given.alpha == kept.given.alpha, "kept chunks have another alpha");
        const counts = .{ read.given.chunk_count, kept.given.chunk_count };
        expect(counts[0] == counts[1], "kept chunks are counted otherwise");
    }

    fn open(program: *Program) void {
        const arguments = &program.arguments;
        const store = &program.stores[arguments.input.byte() & 1];
        program.closeStore(store);
        const choice = arguments.input.byte();
        const max_bytes = if (choice < 0xF0)
            store_bytes[choice % store_bytes.len]
        else
            arguments.input.number(u64) >> 24;
        var handle: u64 = 77;
        const status = c.sluice_store_open(max_bytes, if (arguments.spoils()) null else &handle);
        if (!program.answer(status, &.{c.SLUICE_OUT_OF_MEMORY})) {
            return expect(handle == 77, "a handle was written, but refused");
        }
        store.* = .{ .handle = handle, .is_open = true, .max_bytes = max_bytes };
    }

    fn openTooMany(program: *Program) void {
        program.arguments.is_spoilt = true;
        var handles: [max_stores + 1]u64 = undefined;
        var count: usize = 0;
        while (program.answer(c.sluice_store_open(0, &handles[count]), &.{})) count += 1;
        const others = @as(usize, @intFromBool(program.stores[0].is_open)) +
            @intFromBool(program.stores[1].is_open);
        expect(count + others == max_stores, "another number of stores can be open");
        for (handles[0..count], 0..) |handle, index| {
            const twin = std.mem.findScalarPos(u64, handles[0..count], index + 1, handle);
            expect(twin == null, "two open stores have one handle");
            expect(c.sluice_store_close(handle) == c.SLUICE_OK, "an open store is unknown");
        }
    }

    fn close(program: *Program) void {
        const arguments = &program.arguments;
        const store = &program.stores[arguments.input.byte() & 1];
        if (!arguments.spoils()) return program.closeStore(store);
        const handle = arguments.input.number(u64);
        for (&program.stores) |known| if (known.is_open and known.handle == handle) return;
        const status = c.sluice_store_close(handle);
        expect(status == c.SLUICE_UNKNOWN_STORE, "a store that nobody opened was closed");
        _ = program.answer(status, &.{});
    }

    fn closeStore(program: *Program, store: *Store) void {
        program.arguments.is_spoilt = true;
        const status = c.sluice_store_close(store.handle);
        expect(program.answer(status, &.{}) == store.is_open, "a store was open or not");
        if (!store.is_open) expect(status == c.SLUICE_UNKNOWN_STORE, "a closed store is known");
        expect(c.sluice_store_close(store.handle) == c.SLUICE_UNKNOWN_STORE, "closed twice");
        store.is_open = false;
    }

    /// One of the stores, open or not, or where the call is spoilt one that never was.
    fn pickStore(program: *Program) *Store {
        const input = &program.arguments.input;
        return &program.stores[input.byte() & 1];
    }

    /// Whether a call on a store may be looked at further.
    fn answerOf(program: *Program, store: *const Store, status: u32) bool {
        const is_ok = program.answer(status, &.{ c.SLUICE_UNKNOWN_STORE, c.SLUICE_QUERY_TOO_LONG });
        if (!store.is_open) expect(status == c.SLUICE_UNKNOWN_STORE, "a closed store answers");
        if (store.is_open) expect(status != c.SLUICE_UNKNOWN_STORE, "an open store is unknown");
        return is_ok;
    }

    fn put(program: *Program) void {
        const arguments = &program.arguments;
        const store = program.pickStore();
        const count = arguments.textCount();
        const ids = arguments.ids(count);
        const texts = arguments.texts(count);
        const titles = arguments.titles(count);
        const given_titles = if (titles.offset_count > 0) &titles else null;
        const status = c.sluice_store_put(store.handle, &ids, given_titles, &texts);
        if (program.answerOf(store, status)) program.checkUsage(store);
    }

    fn missing(program: *Program) void {
        const arguments = &program.arguments;
        const store = program.pickStore();
        const count = arguments.textCount();
        const ids = arguments.ids(count);
        var pointer: [*c]u8 = null;
        const is_missing = arguments.output(&pointer, count);
        const status = c.sluice_store_missing(store.handle, &ids, pointer);
        if (!program.answerOf(store, status)) {
            return expect(is_missing.isBlank(), "what is missing was written, but refused");
        }
        expectFlags(is_missing);
        store.looked_up += count;
        program.checkUsage(store);
    }

    fn scoreKept(program: *Program) void {
        const arguments = &program.arguments;
        const store = program.pickStore();
        const query = arguments.text();
        const count = arguments.textCount();
        const ids = arguments.ids(count);
        var similarities: [*c]const f32 = null;
        var unused: u64 = 0;
        arguments.similarities(&similarities, &unused, count);
        const options = arguments.options();
        var statistics: c.sluice_statistics = undefined;
        const known = if (arguments.statistics(&query, &statistics)) &statistics else null;
        var pointer: [*c]u8 = null;
        const is_missing = arguments.output(&pointer, count);
        var scores = Scores.init(arguments, count);
        const status = c.sluice_store_score(
            store.handle,
            &query,
            &ids,
            similarities,
            &options,
            known,
            &scores.given,
            pointer,
        );
        if (!program.answerOf(store, status)) {
            expect(is_missing.isBlank(), "what is missing was written, but refused");
            return scores.expectBlank();
        }
        expectFlags(is_missing);
        scores.expectSound(count);
        for (is_missing.bytes, 0..) |flag, index| {
            const words = scores.columns[2].number(f32, index);
            expect(flag == 0 or words == 0, "a missing chunk scores words");
        }
        store.looked_up += count;
        program.checkUsage(store);
    }

    fn usage(program: *Program) void {
        const store = program.pickStore();
        if (program.arguments.spoils()) {
            const status = c.sluice_store_usage(store.handle, null);
            return expect(!program.answer(status, &.{}), "usage was written nowhere");
        }
        program.checkUsage(store);
    }

    fn checkUsage(program: *Program, store: *Store) void {
        var used: c.sluice_usage = undefined;
        const status = c.sluice_store_usage(store.handle, &used);
        if (!program.answerOf(store, status)) return;
        expect(used.bytes <= store.max_bytes, "a store takes more than its bound");
        expect(used.chunks == 0 or used.bytes >= 32 * used.chunks, "chunks that take nothing");
        expect(used.hits + used.misses == store.looked_up, "lookups are counted otherwise");
    }
};

/// Spans first..last are of one text.
fn expectSpans(room: Room, first: usize, last: usize, byte_count: u32) void {
    var end: u32 = 0;
    var index = first;
    while (index < last) : (index += 1) {
        const start = room.number(u32, 2 * index);
        expect(start >= end, "spans overlap");
        end = room.number(u32, 2 * index + 1);
        expect(end > start and end <= byte_count, "a span of nothing, or outside");
    }
}

fn expectFlags(room: Room) void {
    for (room.bytes) |flag| expect(flag <= 1, "neither missing nor kept");
}

/// From now on the system gives no memory, or does again.
fn starve(is_on: bool) void {
    const limit: std.os.linux.rlimit = .{
        .cur = if (is_on) 1 else std.math.maxInt(u64),
        .max = std.math.maxInt(u64),
    };
    _ = std.os.linux.setrlimit(.AS, &limit);
}
