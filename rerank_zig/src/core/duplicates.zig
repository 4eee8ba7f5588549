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
const Wyhash = std.hash.Wyhash;
const unicode = @import("unicode.zig");

pub const max_texts = 4096;
pub const max_bytes = 1 << 26;
const shingle_words = 3;
const max_bucket_bits = 8;
/// Of the hash of a text without words, so that it is none of a shingle's.
const wordless_seed = 1;

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
    for (texts) |text| longest = @max(longest, text.len);
    var reader: Reader = .{ .buffer = try arena.alloc(u8, longest + longest / 2 + 4) };

    const shapes = try arena.alloc(Shape, texts.len);
    var index: Index = .{ .seen = try arena.alloc(u32, texts.len) };
    @memset(index.seen, std.math.maxInt(u32));
    for (texts, shapes, leaders, 0..) |text, *shape, *leader, number| {
        shape.* = try reader.shape(arena, text);
        const own: u32 = @intCast(number);
        const found = index.find(shapes, own, resemblance);
        leader.* = @intCast(found orelse own);
        if (found == null) try index.add(arena, shape, own, resemblance);
    }
}

/// What is compared of a text.
const Shape = struct {
    /// Ascending, each once.
    shingles: []const u64,
    /// Of the words that hold a digit, in order; 0 without any.
    digits: u64,
    /// Which of 256 bits an odd number of the shingles falls on: two sets differ in at least as
    /// many shingles as bits (Sandes, Teodoro, Melo, "Bitmap filter: speeding up exact set
    /// similarity joins with bitwise operations", 2020).
    parity: @Vector(4, u64),

    /// How many shingles, the least ones, are sure to hold one in common with every set that
    /// resembles this one enough: |A| - ⌈t·|A|⌉ + 1, and one more for what rounding may take.
    fn prefix(shape: *const Shape, resemblance: f64) []const u64 {
        const count: f64 = @floatFromInt(shape.shingles.len);
        const shared: usize = @intFromFloat(@ceil(resemblance * count));
        return shape.shingles[0..@min(shape.shingles.len - shared + 2, shape.shingles.len)];
    }

    fn repeats(left: *const Shape, right: *const Shape, resemblance: f64) bool {
        if (left.digits != right.digits) return false;
        const total = left.shingles.len + right.shingles.len;
        const different = @reduce(.Add, @as(@Vector(4, u64), @popCount(left.parity ^ right.parity)));
        var shared = @min(left.shingles.len, right.shingles.len, (total - different) / 2);
        if (!isEnough(shared, total, resemblance)) return false;
        // Each shingle that only one of them has takes one away from what they can share.
        var l: usize = 0;
        var r: usize = 0;
        var common: usize = 0;
        while (l < left.shingles.len and r < right.shingles.len) {
            const a = left.shingles[l];
            const b = right.shingles[r];
            l += @intFromBool(a <= b);
            r += @intFromBool(b <= a);
            if (a == b) {
                common += 1;
                continue;
            }
            shared = common + @min(left.shingles.len - l, right.shingles.len - r);
            if (!isEnough(shared, total, resemblance)) return false;
        }
        return true;
    }
};

fn isEnough(shared: usize, total: usize, resemblance: f64) bool {
    const intersection: f64 = @floatFromInt(shared);
    const either: f64 = @floatFromInt(total - shared);
    return intersection >= resemblance * either;
}

/// The leaders by the shingles of their prefixes.
const Index = struct {
    newest: std.HashMapUnmanaged(u64, u32, Hashed, 80) = .empty,
    postings: std.ArrayList(Posting) = .empty,
    /// By leader, the last text that was held against it.
    seen: []u32,

    /// A leader with a shingle, and the posting before it of the same shingle.
    const Posting = struct { leader: u32, previous: u32 };
    const none = std.math.maxInt(u32);

    /// Keys are hashes already.
    const Hashed = struct {
        pub fn hash(_: Hashed, key: u64) u64 {
            return key;
        }
        pub fn eql(_: Hashed, left: u64, right: u64) bool {
            return left == right;
        }
    };

    fn find(index: *Index, shapes: []const Shape, own: u32, resemblance: f64) ?u32 {
        const shape = &shapes[own];
        var found: u32 = none;
        for (shape.prefix(resemblance)) |shingle| {
            var at = index.newest.get(shingle ^ shape.digits) orelse continue;
            while (at != none) : (at = index.postings.items[at].previous) {
                const leader = index.postings.items[at].leader;
                if (leader >= found or index.seen[leader] == own) continue;
                index.seen[leader] = own;
                if (shape.repeats(&shapes[leader], resemblance)) found = leader;
            }
        }
        return if (found == none) null else found;
    }

    fn add(
        index: *Index,
        arena: Allocator,
        shape: *const Shape,
        own: u32,
        resemblance: f64,
    ) Allocator.Error!void {
        for (shape.prefix(resemblance)) |shingle| {
            const entry = try index.newest.getOrPut(arena, shingle ^ shape.digits);
            const previous = if (entry.found_existing) entry.value_ptr.* else none;
            entry.value_ptr.* = @intCast(index.postings.items.len);
            try index.postings.append(arena, .{ .leader = own, .previous = previous });
        }
    }
};

/// Reads texts word by word; `buffer` takes the lower case of the longest of them.
const Reader = struct {
    buffer: []u8,
    words: std.ArrayList(u64) = .empty,
    shingles: std.ArrayList(u64) = .empty,

    fn shape(reader: *Reader, arena: Allocator, text: []const u8) Allocator.Error!Shape {
        reader.words.clearRetainingCapacity();
        var digits: u64 = 0;
        var position: usize = 0;
        while (reader.next(text, &position)) |word| {
            const hash = Wyhash.hash(0, word.lowered);
            if (word.holds_digit) digits = combined(&.{ digits, hash });
            try reader.words.append(arena, hash);
        }
        const words = reader.words.items;
        try reader.shingles.resize(arena, @max(words.len, shingle_words) - shingle_words + 1);
        const shingles = reader.shingles.items;
        if (words.len >= shingle_words) {
            for (shingles, 0..) |*shingle, first| {
                shingle.* = combined(words[first..][0..shingle_words]);
            }
        } else {
            shingles[0] = if (words.len > 0) combined(words) else Wyhash.hash(wordless_seed, text);
        }
        const ascending = try arena.alloc(u64, shingles.len);
        sort(shingles, ascending);
        const set = unique(ascending);
        return .{ .shingles = set, .digits = digits, .parity = parityOf(set) };
    }

    const Word = struct { lowered: []const u8, holds_digit: bool };

    /// The next word, in lower case; it lives until the call after.
    fn next(reader: *Reader, text: []const u8, position: *usize) ?Word {
        var at = position.*;
        var len: usize = 0;
        var holds_digit = false;
        while (at < text.len) {
            const byte = text[at];
            if (byte < 0x80) {
                const lowered = ascii_lower[byte];
                at += 1;
                if (lowered == 0) {
                    if (len > 0) break;
                    continue;
                }
                reader.buffer[len] = lowered;
                len += 1;
                holds_digit = holds_digit or lowered <= '9';
                continue;
            }
            const decoded = unicode.decode(text[at..]);
            at += decoded.byte_count;
            const class = if (decoded.code_point) |point| unicode.classify(point) else .separator;
            const begins_none = len == 0 and class == .mark;
            if (class == .separator or begins_none) {
                if (len > 0) break;
                continue;
            }
            len += unicode.encode(unicode.lower(decoded.code_point.?), reader.buffer[len..][0..4]);
            holds_digit = holds_digit or class == .digit;
        }
        position.* = at;
        return if (len > 0) .{ .lowered = reader.buffer[0..len], .holds_digit = holds_digit } else null;
    }
};

fn combined(hashes: []const u64) u64 {
    return Wyhash.hash(0, std.mem.sliceAsBytes(hashes));
}

/// Hashes are spread evenly: after one pass by their leading bits hardly anything is left to sort.
fn sort(hashes: []const u64, ascending: []u64) void {
    const bits = @min(std.math.log2_int_ceil(u64, @max(hashes.len, 2)), max_bucket_bits);
    const shift: u6 = @intCast(@as(u7, 64) - bits);
    var ends: [1 << max_bucket_bits]u32 = undefined;
    const buckets = ends[0 .. @as(usize, 1) << @intCast(bits)];
    @memset(buckets, 0);
    for (hashes) |hash| buckets[@intCast(hash >> shift)] += 1;
    var end: u32 = 0;
    for (buckets) |*bucket| {
        // From its count to where it begins; each hash put there moves that on, to its end.
        const count = bucket.*;
        bucket.* = end;
        end += count;
    }
    for (hashes) |hash| {
        const bucket = &buckets[@intCast(hash >> shift)];
        ascending[bucket.*] = hash;
        bucket.* += 1;
    }
    var start: u32 = 0;
    for (buckets) |bucket_end| {
        const bucket = ascending[start..bucket_end];
        start = bucket_end;
        if (bucket.len > 16) {
            std.mem.sortUnstable(u64, bucket, {}, std.sort.asc(u64));
        } else if (bucket.len > 1) {
            std.sort.insertion(u64, bucket, {}, std.sort.asc(u64));
        }
    }
}

/// Moves the first of each run of equals to the front.
fn unique(ascending: []u64) []u64 {
    var count: usize = 1;
    for (ascending[1..]) |value| {
        if (value == ascending[count - 1]) continue;
        ascending[count] = value;
        count += 1;
    }
    return ascending[0..count];
}

fn parityOf(set: []const u64) @Vector(4, u64) {
    var parity: [4]u64 = @splat(0);
    for (set) |shingle| {
        const bit: u6 = @truncate(shingle);
        const word: u2 = @truncate(shingle >> 6);
        parity[word] ^= @as(u64, 1) << bit;
    }
    return parity;
}

/// The lower case of an ASCII letter or digit, 0 for what separates words.
const ascii_lower: [128]u8 = lowered: {
    var lowered: [128]u8 = undefined;
    for (&lowered, 0..) |*byte, code_point| {
        byte.* = if (unicode.classify(code_point) == .separator) 0 else unicode.lower(code_point);
    }
    break :lowered lowered;
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
