//! A chunk as a store keeps it: the hashes of its terms, of the title and then of the text, and
//! where each stands. Pure, and fixed once it is written.
//!
//! The low halves of the hashes stand before the high ones: the low ones decide almost always, so a
//! scan reads all of them and little else. Positions take the fewest bytes that hold them all.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Finder = @import("scan_sequence.zig").Finder;
const Gathering = @import("scan.zig").Gathering;
const Sequence = @import("sequence.zig").Sequence;
const block = @import("scan_sequence.zig").block;

/// Of the processor's cache, in bytes; only speed depends on it and on how many are fetched when.
const line = 64;
const first_lines = 1;
const max_lines = 64;

/// Stands before the halves of a chunk's hashes and their positions.
pub const Entry = extern struct {
    key: Key,
    title_length: u32,
    text_length: u32,
    title_terms: u32,
    text_terms: u32,

    pub const Key = u128;
    /// Of the entry's place, and of its size.
    pub const alignment = 32;

    pub fn init(key: Key, title: Sequence, text: Sequence) Entry {
        return .{
            .key = key,
            .title_length = title.length,
            .text_length = text.length,
            .title_terms = @intCast(title.hashes.len),
            .text_terms = @intCast(text.hashes.len),
        };
    }

    fn termCount(entry: *const Entry) usize {
        return @as(usize, entry.title_terms) + entry.text_terms;
    }

    /// Low halves fill whole blocks.
    fn lowCount(entry: *const Entry) usize {
        return std.mem.alignForward(usize, entry.termCount(), block);
    }

    pub fn byteSize(entry: *const Entry) usize {
        const halves = entry.lowCount() + entry.termCount();
        const bytes = @sizeOf(Entry) + 2 * halves + entry.positionSize() * entry.termCount();
        return std.mem.alignForward(usize, bytes, alignment);
    }

    /// In bytes.
    fn positionSize(entry: *const Entry) usize {
        return switch (@max(entry.title_length, entry.text_length)) {
            0...1 << 8 => 1,
            (1 << 8) + 1...1 << 16 => 2,
            else => 4,
        };
    }

    fn lowHalves(entry: *const Entry) []const u16 {
        const first: [*]const u16 = @ptrCast(@as([*]const Entry, @ptrCast(entry)) + 1);
        return first[0..entry.lowCount()];
    }

    fn highHalves(entry: *const Entry) []const u16 {
        return (entry.lowHalves().ptr + entry.lowCount())[0..entry.termCount()];
    }

    fn positions(entry: *const Entry, comptime size: usize) []align(1) const Position(size) {
        const first: [*]align(1) const Position(size) =
            @ptrCast(entry.highHalves().ptr + entry.termCount());
        return first[0..entry.termCount()];
    }

    fn Position(comptime size: usize) type {
        return std.meta.Int(.unsigned, 8 * size);
    }

    pub fn write(entry: *Entry, title: Sequence, text: Sequence) void {
        entry.writeField(title, 0);
        entry.writeField(text, title.hashes.len);
        @memset(@constCast(entry.lowHalves()[entry.termCount()..]), 0);
    }

    fn writeField(entry: *Entry, field: Sequence, start: usize) void {
        const low = @constCast(entry.lowHalves()[start..]);
        const high = @constCast(entry.highHalves()[start..]);
        for (field.hashes, 0..) |hash, place| {
            low[place] = @truncate(hash);
            high[place] = @intCast(hash >> 16);
        }
        switch (entry.positionSize()) {
            inline 1, 2, 4 => |size| {
                const places = @constCast(entry.positions(size)[start..]);
                for (field.positions, 0..) |position, place| places[place] = @intCast(position);
            },
            else => unreachable,
        }
    }

    /// Starts to fetch what tells its size, and some.
    pub fn prefetchStart(entry: *const Entry) void {
        entry.prefetchLines(0, first_lines);
    }

    /// The rest of it, as far as the cache can take it.
    pub fn prefetchRest(entry: *const Entry) void {
        const lines = entry.byteSize() / line + 1;
        entry.prefetchLines(first_lines, @max(first_lines, @min(lines, max_lines)));
    }

    fn prefetchLines(entry: *const Entry, first: usize, end: usize) void {
        const bytes: [*]const u8 = @ptrCast(entry);
        for (first..end) |index| @prefetch(bytes + index * line, .{});
    }

    /// Gathers the query's terms in both fields.
    pub fn scan(
        entry: *const Entry,
        arena: Allocator,
        finder: *const Finder,
        gathering: *Gathering,
    ) Allocator.Error!void {
        switch (entry.positionSize()) {
            inline 1, 2, 4 => |size| try entry.scanSized(size, arena, finder, gathering),
            else => unreachable,
        }
        gathering.end(entry.title_length);
        gathering.end(entry.text_length);
    }

    inline fn scanSized(
        entry: *const Entry,
        comptime position_size: usize,
        arena: Allocator,
        finder: *const Finder,
        gathering: *Gathering,
    ) Allocator.Error!void {
        const low, const high = .{ entry.lowHalves(), entry.highHalves() };
        const places = entry.positions(position_size);
        const title = gathering.field();
        try gathering.matches.ensureUnusedCapacity(arena, high.len);
        var start: usize = 0;
        while (start < low.len) : (start += block) {
            var candidates = finder.candidates(low[start..][0..block]);
            while (candidates != 0) : (candidates &= candidates - 1) {
                const place = start + @ctz(candidates);
                if (place >= high.len) break; // only a term whose low half is 0 gets there
                const hash = @as(u32, high[place]) << 16 | low[place];
                gathering.matches.appendAssumeCapacity(.{
                    .position = places[place],
                    .field = title + @intFromBool(place >= entry.title_terms),
                    .ordinal = finder.query.find(hash) orelse continue,
                });
            }
        }
    }
};
