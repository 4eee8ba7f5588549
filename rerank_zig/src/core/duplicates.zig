//! Finds texts that nearly repeat an earlier one. Pure; scratch comes from the caller's arena.
//!
//! Two texts nearly repeat each other if
//!   - the resemblance of their sets of shingles, |A ∩ B| / |A ∪ B|, is at least a threshold
//!     (Broder, "On the resemblance and containment of documents", 1997). A shingle is three words
//!     that follow each other, in lower case, whole, unstemmed, stop words included; one or two
//!     words are one shingle, and of a text without words its bytes are;
//!   - and their words that hold a digit are the same ones in the same order. Log lines that differ
//!     in nothing but `NN-HA-42` and `NN-HA-43`, a port or a date say different things.
//! Words are those of tokenizer.zig, but however long they are, all of their bytes count.
//!
//! A text that repeats no leader becomes one, and texts are held against leaders only; so no member
//! of a group is less alike to its leader than the threshold says. Which leaders are worth a
//! comparison is found by prefix filtering (Chaudhuri, Ganti, Kaushik, "A Primitive Operator for
//! Similarity Joins in Data Cleaning", 2006), which misses none. Shingles and words are compared by
//! 64-bit hash: that two different ones among a million are taken for one has odds of 1 to 10^7.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Reader = shingles_file.Reader;
const Shape = shingles_file.Shape;
const shingles_file = @import("shingles.zig");
const unfilled = @import("unfilled.zig").unfilled;
const unicode = @import("unicode.zig");

pub const max_texts = 4096;
pub const max_bytes = 1 << 26;

/// Writes for each text the index of the first leader that it nearly repeats; its own if none.
/// At most `max_texts` of at most `max_bytes` together; `resemblance` is above 0, at most 1.
pub fn group(
    arena: Allocator,
    texts: []const []const u8,
    resemblance: f64,
    leaders: []align(1) i32,
) Allocator.Error!void {
    std.debug.assert(texts.len <= max_texts and texts.len == leaders.len);
    std.debug.assert(resemblance > 0 and resemblance <= 1);
    var longest: usize = 0;
    var max_shingles: usize = 0;
    for (texts) |text| {
        longest = @max(longest, text.len);
        max_shingles += shingles_file.maxCount(text);
    }
    const reader = try Reader.init(arena, longest);
    var rest = try unfilled(arena, u64, max_shingles);
    const shapes = try unfilled(arena, Shape, texts.len);
    var max_postings: usize = 0;
    for (texts, shapes) |text, *shape| {
        shape.* = reader.shape(text, rest[0..shingles_file.maxCount(text)]);
        rest = rest[shape.shingles.len..];
        max_postings += shape.prefix(resemblance).len;
    }

    var index = try Index.init(arena, texts.len, max_postings);
    for (shapes, leaders, 0..) |*shape, *leader, number| {
        const own: u32 = @intCast(number);
        const found = index.find(shapes, own, resemblance);
        leader.* = @intCast(found orelse own);
        if (found == null) index.add(shape, own, resemblance);
    }
}

/// The leaders by the shingles of their prefixes.
const Index = struct {
    /// By the shingle, open addressing, at most half full: the newest posting of it.
    slots: []u32,
    postings: std.ArrayList(Posting),
    /// By leader, the last text that was held against it.
    seen: []u32,

    /// A leader with a shingle, and the posting before it of the same shingle.
    const Posting = struct { shingle: u64, leader: u32, previous: u32 };
    const none = std.math.maxInt(u32);

    fn init(arena: Allocator, text_count: usize, max_postings: usize) Allocator.Error!Index {
        const slot_count = std.math.ceilPowerOfTwoAssert(usize, 2 * max_postings + 1);
        const index: Index = .{
            .slots = try unfilled(arena, u32, slot_count),
            .postings = .initBuffer(try unfilled(arena, Posting, max_postings)),
            .seen = try unfilled(arena, u32, text_count),
        };
        @memset(index.slots, none);
        @memset(index.seen, none);
        return index;
    }

    /// Where the newest posting of a shingle is, or would be. Shingles are hashes already; those of
    /// prefixes are the least, so their last bits tell them apart.
    fn slotOf(index: *const Index, shingle: u64) *u32 {
        const mask = index.slots.len - 1;
        var at = @as(usize, @truncate(shingle)) & mask;
        while (index.slots[at] != none) : (at = (at + 1) & mask) {
            if (index.postings.items[index.slots[at]].shingle == shingle) break;
        }
        return &index.slots[at];
    }

    fn find(index: *Index, shapes: []const Shape, own: u32, resemblance: f64) ?u32 {
        const shape = &shapes[own];
        var found: u32 = none;
        for (shape.prefix(resemblance)) |shingle| {
            var at = index.slotOf(shingle ^ shape.digits).*;
            while (at != none) : (at = index.postings.items[at].previous) {
                const leader = index.postings.items[at].leader;
                if (leader >= found or index.seen[leader] == own) continue;
                index.seen[leader] = own;
                if (shape.repeats(&shapes[leader], resemblance)) found = leader;
            }
        }
        return if (found == none) null else found;
    }

    fn add(index: *Index, shape: *const Shape, own: u32, resemblance: f64) void {
        for (shape.prefix(resemblance)) |shingle| {
            const key = shingle ^ shape.digits;
            const slot = index.slotOf(key);
            const posting: Posting = .{ .shingle = key, .leader = own, .previous = slot.* };
            slot.* = @intCast(index.postings.items.len);
            index.postings.appendAssumeCapacity(posting);
        }
    }
};

const testing = std.testing;

fn expectGroups(texts: []const []const u8, resemblance: f64, expected: []const i32) !void {
    var arena = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena.deinit();
    const leaders = try arena.allocator().alloc(i32, texts.len);
    try group(arena.allocator(), texts, resemblance, leaders);
    try testing.expectEqualSlices(i32, expected, leaders);
}

test "equal words repeat, whatever their case and what stands between them" {
    const texts = [_][]const u8{
        "Promote the standby, then fence.", "something else", "promote THE standby: then fence",
        "promote the standby then",
    };
    try expectGroups(&texts, 0.9, &.{ 0, 1, 0, 3 });
    try expectGroups(&texts, 0.6, &.{ 0, 1, 0, 0 });
    try expectGroups(&.{}, 0.9, &.{});
}

test "texts of few words and of none" {
    const texts = [_][]const u8{
        "",     "quota", "Quota!", "a quota", "quota a",  "---",  "***",
        "--- ", "---",   "",       "\xFF",    "\xFF\xFF", "\xFF",
    };
    try expectGroups(&texts, 0.9, &.{ 0, 1, 1, 3, 4, 5, 6, 7, 5, 0, 10, 11, 10 });
}

test "words with digits keep texts apart, in their order" {
    const line = "the namenode failed over and its journal was replayed without any loss at all ";
    const texts = [_][]const u8{
        line ** 9 ++ "nn-ha-42", line ** 9 ++ "nn-ha-43", line ** 8 ++ "nn-ha-42",
        "7 8 " ++ line,          "8 7 " ++ line,          "7 8 " ++ line ++ line,
        "x² " ++ line,
        "x " ++ line,
    };
    try expectGroups(&texts, 0.5, &.{ 0, 1, 0, 3, 4, 3, 6, 7 });
}

test "a text is held against leaders only" {
    const texts = [_][]const u8{ "a b c d e f", "a b c d e f g", "a b c d e f g h" };
    try expectGroups(&texts, 0.8, &.{ 0, 0, 2 });
}

test "the first of several leaders" {
    const texts = [_][]const u8{ "a b c d e f", "b c d e f g h", "a b c d e f g" };
    try expectGroups(&texts, 0.7, &.{ 0, 1, 0 });
}

test "all bytes of a long word count" {
    const long = "x" ** 200;
    try expectGroups(&.{ long ++ "a", long ++ "b", long ++ "A" }, 0.9, &.{ 0, 1, 0 });
}

test "lower case takes at most half as many bytes again" {
    var code_point: u21 = 0;
    while (code_point <= 0x10FFFF) : (code_point += 1) {
        if (code_point == 0xD800) code_point = 0xE000;
        var buffer: [4]u8 = undefined;
        const before: usize = unicode.encode(code_point, &buffer);
        const after: usize = unicode.encode(unicode.lower(code_point), &buffer);
        try testing.expect(2 * after <= 3 * before);
    }
    try expectGroups(&.{ "Ⱥ" ** 999, "ⱥ" ** 999 }, 0.9, &.{ 0, 0 });
}

test "words are the same in any case, of any length and wherever they stand" {
    var random_state = std.Random.DefaultPrng.init(3);
    const random = random_state.random();
    for (1..140) |len| {
        var word: [140]u8 = undefined;
        for (word[0..len]) |*byte| byte.* = "abcXYZ019"[random.uintLessThan(usize, 9)];
        var upper: [140]u8 = undefined;
        var other = word;
        other[len - 1] +%= 1;
        const lines = [_][]const u8{
            std.ascii.upperString(&upper, word[0..len]), word[0..len], other[0..len],
        };
        var buffers: [4][300]u8 = undefined;
        var texts: [4][]const u8 = undefined;
        for (&texts, &buffers, 0..) |*text, *buffer, index| {
            const space = if (index == 0) 64 else random.uintLessThan(usize, 80);
            @memset(buffer, ' ');
            @memcpy(buffer[space..][0..len], lines[@min(index, 2)]);
            text.* = buffer[0 .. space + len + index];
        }
        texts[3] = lines[1];
        try expectGroups(&texts, 0.9, &.{ 0, 0, 2, 0 });
    }
    try expectGroups(&.{ "Kelvin", "\u{212A}elvin", "d\u{130}n", "din" }, 0.9, &.{ 0, 0, 2, 2 });
}
