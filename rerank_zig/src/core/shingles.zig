//! What duplicates.zig compares of a text: the set of its shingles, and its words with digits. Pure,
//! on any bytes. It must never take words for equal that differ in more than their case.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Block = word_blocks.Block;
const Blocks = word_blocks.Blocks;
const unfilled = @import("unfilled.zig").unfilled;
const unicode = @import("unicode.zig");
const word_blocks = @import("word_blocks.zig");
const Wyhash = std.hash.Wyhash;

const shingle_words = 3;
const max_bucket_bits = 11;
const max_inserted = 16;
/// Of the hash of a text without words, so that it is none of a shingle's.
const wordless_seed = 1;

/// How many shingles a text has at most: between two words is at least a byte.
pub fn maxCount(text: []const u8) usize {
    return @max((text.len + 1) / 2, 1);
}

/// What is compared of a text.
pub const Shape = struct {
    /// Ascending, each once.
    shingles: []const u64,
    /// Of the words that hold a digit, in order; 0 without any.
    digits: u64,
    /// Which of 256 bits an odd number of the shingles falls on: two sets differ in at least as
    /// many shingles as bits (Sandes, Teodoro, Melo, "Bitmap filter: speeding up exact set
    /// similarity joins with bitwise operations", 2020).
    parity: @Vector(4, u64),

    /// Of ascending shingles, among which each is kept once.
    fn of(ascending: []u64, digits: u64) Shape {
        var parity: [4]u64 = @splat(0);
        var count: usize = 0;
        var previous = ~ascending[0];
        for (ascending) |shingle| {
            ascending[count] = shingle;
            const is_new = @intFromBool(shingle != previous);
            count += is_new;
            previous = shingle;
            const bit: u6 = @truncate(shingle);
            parity[@as(u2, @truncate(shingle >> 6))] ^= @as(u64, is_new) << bit;
        }
        return .{ .shingles = ascending[0..count], .digits = digits, .parity = parity };
    }

    /// How many shingles, the least ones, are sure to hold one in common with every set that
    /// resembles this one enough: |A| - ⌈t·|A|⌉ + 1, and one more for what rounding may take.
    pub fn prefix(shape: *const Shape, resemblance: f64) []const u64 {
        const count: f64 = @floatFromInt(shape.shingles.len);
        const shared: usize = @intFromFloat(@ceil(resemblance * count));
        return shape.shingles[0..@min(shape.shingles.len - shared + 2, shape.shingles.len)];
    }

    pub fn repeats(left: *const Shape, right: *const Shape, resemblance: f64) bool {
        if (left.digits != right.digits) return false;
        const total = left.shingles.len + right.shingles.len;
        const bits: @Vector(4, u64) = @popCount(left.parity ^ right.parity);
        const different = @reduce(.Add, bits);
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

/// Reads texts word by word.
pub const Reader = struct {
    /// Takes the lower case of any word.
    buffer: []u8,
    /// Of one text as they come, after room for what precedes the third word.
    shingles: []u64,
    /// Of the buckets that shingles are sorted by.
    bucket_ends: [1 << max_bucket_bits]u32,

    pub fn init(arena: Allocator, longest: usize) Allocator.Error!*Reader {
        const reader = &(try unfilled(arena, Reader, 1))[0];
        reader.buffer = try unfilled(arena, u8, longest + longest / 2 + 4);
        reader.shingles = try unfilled(arena, u64, (longest + 1) / 2);
        return reader;
    }

    /// What is compared of the text, its shingles at the start of `room`.
    pub fn shape(reader: *Reader, text: []const u8, room: []u64) Shape {
        var reading: Reading = .{ .reader = reader, .text = text };
        var blocks = Blocks.init(text);
        while (blocks.next()) |piece| switch (piece) {
            .block => |*block| reading.readBlock(block),
            .alone => |word| blocks.skipTo(reading.readAlone(word.start)),
        };
        const before = shingle_words - 1;
        if (reading.word_count <= before) {
            const words = [_]u64{ reading.first, reading.second };
            room[0] = Wyhash.hash(0, std.mem.sliceAsBytes(words[before - reading.word_count ..]));
            if (reading.word_count == 0) room[0] = Wyhash.hash(wordless_seed, text);
            return .of(room[0..1], reading.digits);
        }
        const shingles = reader.shingles[before..reading.word_count];
        reader.sort(shingles, room[0..shingles.len]);
        return .of(room[0..shingles.len], reading.digits);
    }

    /// Hashes are spread evenly: after one pass by their leading bits hardly anything is left to
    /// sort.
    fn sort(reader: *Reader, hashes: []const u64, ascending: []u64) void {
        const bits = @min(std.math.log2_int_ceil(usize, @max(hashes.len, 2)), max_bucket_bits);
        const shift: u6 = @intCast(@as(u7, 64) - bits);
        const buckets = reader.bucket_ends[0 .. @as(usize, 1) << @intCast(bits)];
        @memset(buckets, 0);
        for (hashes) |hash| buckets[@intCast(hash >> shift)] += 1;
        var end: u32 = 0;
        var fullest: u32 = 0;
        for (buckets) |*bucket| {
            // From its count to where it begins; each hash put there moves that on, to its end.
            const count = bucket.*;
            fullest = @max(fullest, count);
            bucket.* = end;
            end += count;
        }
        for (hashes) |hash| {
            const bucket = &buckets[@intCast(hash >> shift)];
            ascending[bucket.*] = hash;
            bucket.* += 1;
        }
        if (fullest <= max_inserted) return insert(ascending);
        var start: u32 = 0;
        for (buckets) |bucket_end| {
            std.mem.sortUnstable(u64, ascending[start..bucket_end], {}, std.sort.asc(u64));
            start = bucket_end;
        }
    }
};

/// Sorts what is nearly sorted.
fn insert(values: []u64) void {
    for (values[1..], 1..) |value, from| {
        var place = from;
        while (place > 0 and values[place - 1] > value) : (place -= 1) {
            values[place] = values[place - 1];
        }
        values[place] = value;
    }
}

/// One text under way.
const Reading = struct {
    reader: *Reader,
    text: []const u8,
    word_count: usize = 0,
    /// Hashes of the last two words.
    first: u64 = 0,
    second: u64 = 0,
    digits: u64 = 0,

    fn readBlock(reading: *Reading, block: *const Block) void {
        var starts = block.starts();
        while (starts != 0) : (starts &= starts - 1) {
            const place: u6 = @intCast(@ctz(starts));
            const len: u6 = @intCast(@min(block.wordLen(place), 63)); // no longer one is short
            const mask = ((@as(u64, 1) << len) - 1) << place;
            if (len > ShortWord.max_len or block.classes.non_ascii & mask != 0) {
                _ = reading.readAlone(block.start + place);
                continue;
            }
            const word: ShortWord = .ofAscii(block.window[place..][0..ShortWord.max_len], len);
            reading.add(word.hash(), block.classes.digit & mask != 0);
        }
    }

    /// Reads any word, code point by code point, and returns where it ends.
    fn readAlone(reading: *Reading, start: usize) usize {
        const text, const buffer = .{ reading.text, reading.reader.buffer };
        var at = start;
        var len: usize = 0;
        var holds_digit = false;
        while (at < text.len) {
            const decoded = unicode.decode(text[at..]);
            const code_point = decoded.code_point orelse break;
            const class = unicode.classify(code_point);
            if (class == .separator) break;
            at += decoded.byte_count;
            len += unicode.encode(unicode.lower(code_point), buffer[len..][0..4]);
            holds_digit = holds_digit or class == .digit;
        }
        reading.add(hashOf(buffer[0..len]), holds_digit);
        return at;
    }

    inline fn add(reading: *Reading, word: u64, holds_digit: bool) void {
        if (holds_digit) reading.digits = mixed(reading.digits ^ secret[0], word ^ secret[1]);
        const both = mixed(reading.first ^ secret[2], reading.second ^ secret[3]);
        reading.reader.shingles[reading.word_count] = mixed(both ^ secret[1], word ^ secret[0]);
        reading.word_count += 1;
        reading.first = reading.second;
        reading.second = word;
    }
};

/// The hash of a word in lower case.
fn hashOf(lowered: []const u8) u64 {
    if (lowered.len > ShortWord.max_len) return Wyhash.hash(0, lowered);
    var bytes: [ShortWord.max_len]u8 = @splat(0);
    @memcpy(bytes[0..lowered.len], lowered);
    return ShortWord.of(&bytes).hash();
}

/// A word in lower case and zeros after it.
const ShortWord = struct {
    const max_len = word_blocks.reach;
    const half = max_len / 2;

    halves: [2]u64,

    inline fn of(bytes: *const [max_len]u8) ShortWord {
        const first = std.mem.readInt(u64, bytes[0..half], .little);
        return .{ .halves = .{ first, std.mem.readInt(u64, bytes[half..], .little) } };
    }

    /// The first `len` of these bytes, letters and digits of ASCII, whose lower case differs from
    /// their upper case in one bit, which digits have.
    inline fn ofAscii(bytes: *const [max_len]u8, len: usize) ShortWord {
        const lower: u64 = 0x2020_2020_2020_2020;
        const all = ShortWord.of(bytes).halves;
        const kept = masks[len];
        return .{ .halves = .{ (all[0] | lower) & kept[0], (all[1] | lower) & kept[1] } };
    }

    const masks: [max_len + 1][2]u64 = masks: {
        var table: [max_len + 1][2]u64 = undefined;
        for (&table, 0..) |*mask, len| {
            var bytes: [max_len]u8 = @splat(0);
            @memset(bytes[0..len], 0xFF);
            mask.* = of(&bytes).halves;
        }
        break :masks table;
    };

    inline fn hash(word: ShortWord) u64 {
        return mixed(word.halves[0] ^ secret[0], word.halves[1] ^ secret[1]);
    }
};

/// Wyhash's own.
const secret = [_]u64{
    0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3, 0x589965cc75374cc3,
};

/// The two halves of a product as one, by which Wyhash mixes.
inline fn mixed(left: u64, right: u64) u64 {
    const product = @as(u128, left) * right;
    return @as(u64, @truncate(product)) ^ @as(u64, @truncate(product >> 64));
}

const testing = std.testing;

test "shingles are sorted, whether spread evenly or not" {
    var arena = std.heap.ArenaAllocator.init(testing.allocator);
    defer arena.deinit();
    const reader = try Reader.init(arena.allocator(), 1);
    var random_state = std.Random.DefaultPrng.init(9);
    const random = random_state.random();
    for (0..400) |round| {
        var hashes: [600]u64 = undefined;
        var expected: [600]u64 = undefined;
        var found: [600]u64 = undefined;
        const count = 1 + random.uintLessThan(usize, hashes.len - 1);
        const kept_bits: u6 = @intCast(round % 64);
        for (hashes[0..count]) |*hash| hash.* = random.int(u64) >> kept_bits;
        if (round % 3 == 0) @memset(hashes[0 .. count / 2], hashes[0]);
        @memcpy(expected[0..count], hashes[0..count]);
        std.mem.sort(u64, expected[0..count], {}, std.sort.asc(u64));
        reader.sort(hashes[0..count], found[0..count]);
        try testing.expectEqualSlices(u64, expected[0..count], found[0..count]);
    }
}
