//! A chunk as a store keeps it: the hashes of its terms by position, of the title and of the text.
//! Pure, and fixed once it is written.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Finder = @import("scan_sequence.zig").Finder;
const Gathering = @import("scan.zig").Gathering;
const Match = @import("scan.zig").Match;
const Sequence = @import("sequence.zig").Sequence;
const block = @import("scan_sequence.zig").block;
const spare = @import("scan_sequence.zig").spare;

/// Of the processor's cache, in bytes; only speed depends on it.
const line = 64;
const first_lines = 4;
const max_lines = 64;

/// Stands before the halves of a chunk's hashes and the positions of its extras.
pub const Entry = extern struct {
    key: Key,
    title_words: u32,
    title_extras: u32,
    text_words: u32,
    text_extras: u32,

    pub const Key = u128;
    /// Of the entry's place, and of its size.
    pub const alignment = 32;

    const Sizes = struct { hashes: usize, extras: usize };

    pub fn init(key: Key, title: Sequence, text: Sequence) Entry {
        return .{
            .key = key,
            .title_words = @intCast(title.words.len),
            .title_extras = @intCast(title.extras.len),
            .text_words = @intCast(text.words.len),
            .text_extras = @intCast(text.extras.len),
        };
    }

    /// Whether 32 bits count its hashes.
    pub fn isScannable(entry: *const Entry) bool {
        return entry.sizes().hashes <= std.math.maxInt(u32);
    }

    /// What follows the entry: hashes fill whole blocks, their low halves before their high ones.
    fn sizes(entry: *const Entry) Sizes {
        const extras = @as(usize, entry.title_extras) + entry.text_extras;
        const hashes = extras + entry.title_words + entry.text_words;
        return .{ .hashes = std.mem.alignForward(usize, hashes, block), .extras = extras };
    }

    pub fn byteSize(entry: *const Entry) usize {
        const needed = entry.sizes();
        const bytes = @sizeOf(Entry) + 4 * needed.hashes + 4 * needed.extras;
        return std.mem.alignForward(usize, bytes, alignment);
    }

    fn firstHalf(entry: *const Entry) [*]const u16 {
        return @ptrCast(@as([*]const Entry, @ptrCast(entry)) + 1);
    }

    fn extraPositions(entry: *const Entry) []const u32 {
        const needed = entry.sizes();
        const first: [*]const u32 = @ptrCast(@alignCast(entry.firstHalf() + 2 * needed.hashes));
        return first[0..needed.extras];
    }

    /// Title words, title extras, text words, text extras.
    pub fn write(entry: *Entry, title: Sequence, text: Sequence) void {
        const needed = entry.sizes();
        const low: [*]u16 = @constCast(entry.firstHalf());
        const high = low + needed.hashes;
        var place: usize = 0;
        for ([_][]const u32{ title.words, title.extras, text.words, text.extras }) |hashes| {
            for (hashes, low[place..], high[place..]) |hash, *l, *h| {
                l.*, h.* = .{ @truncate(hash), @intCast(hash >> 16) };
            }
            place += hashes.len;
        }
        @memset(low[place..needed.hashes], 0);
        @memset(high[place..needed.hashes], 0);
        const places = @constCast(entry.extraPositions());
        @memcpy(places[0..title.extras.len], title.extra_positions);
        @memcpy(places[title.extras.len..], text.extra_positions);
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

    /// Finds in all groups of hashes at once, then gives each field its own.
    pub fn scan(
        entry: *const Entry,
        arena: Allocator,
        finder: *const Finder,
        gathering: *Gathering,
    ) Allocator.Error!void {
        const matches = &gathering.matches;
        const needed = entry.sizes();
        // As much again as extras: `merge` needs it.
        try matches.ensureUnusedCapacity(arena, needed.hashes + needed.extras + spare);
        const start = matches.items.len;
        const halves = entry.firstHalf();
        finder.find(halves[0..needed.hashes], halves[needed.hashes..][0..needed.hashes], matches);

        // Most candidates hold no extra that is a term; then a match belongs to the title or the
        // text by its place alone.
        const text_start = entry.title_words + entry.title_extras;
        const text_end = text_start + entry.text_words;
        var title_count: usize = 0;
        var has_extras = false;
        for (matches.items[start..]) |match| {
            const is_text = match.position >= text_start;
            title_count += @intFromBool(!is_text);
            const end = if (is_text) text_end else entry.title_words;
            has_extras = has_extras or match.position >= end;
        }
        if (has_extras) return entry.splitFields(start, gathering);
        for (matches.items[start + title_count ..]) |*match| match.position -= text_start;
        const title_end = start + title_count;
        gathering.ends.appendAssumeCapacity(.{ .length = entry.title_words, .match = title_end });
        gathering.end(entry.text_words);
    }

    /// Gives the matches from `start` on to their fields, and puts extras where they belong.
    fn splitFields(entry: *const Entry, start: usize, gathering: *Gathering) void {
        const matches = &gathering.matches;
        var rest = start;
        var place: u32 = 0;
        var positions = entry.extraPositions();
        for (
            [_]u32{ entry.title_words, entry.text_words },
            [_]u32{ entry.title_extras, entry.text_extras },
        ) |words, extras| {
            const word_matches = takeBelow(matches.items[rest..], place + words);
            for (word_matches) |*match| match.position -= place;
            place += words;
            const extra_matches = takeBelow(matches.items[rest + word_matches.len ..], place + extras);
            for (extra_matches) |*match| match.position = positions[match.position - place];
            place += extras;
            positions = positions[extras..];

            const count = word_matches.len + extra_matches.len;
            merge(matches.items[rest..][0..count], extra_matches.len, matches.unusedCapacitySlice());
            rest += count;
            gathering.ends.appendAssumeCapacity(.{ .length = words, .match = rest });
        }
    }
};

/// The first of the matches, as long as their places are below a limit.
fn takeBelow(matches: []Match, limit: u32) []Match {
    for (matches, 0..) |match, index| {
        if (match.position >= limit) return matches[0..index];
    }
    return matches;
}

/// Sorts matches of which the last `extra_count` ascend by themselves, as do those before, by
/// position; at one position the extras come last.
fn merge(matches: []Match, extra_count: usize, room: []Match) void {
    var words = matches.len - extra_count;
    var extras = extra_count;
    @memcpy(room[0..extras], matches[words..]);
    while (extras > 0) {
        const is_word = words > 0 and matches[words - 1].position > room[extras - 1].position;
        const last = if (is_word) matches[words - 1] else room[extras - 1];
        matches[words + extras - 1] = last;
        if (is_word) words -= 1 else extras -= 1;
    }
}
