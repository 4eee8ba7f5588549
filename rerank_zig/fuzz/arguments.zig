//! Makes the arguments of calls out of an input, right ones or, where the call shall be spoilt,
//! wrong ones. It must never break what the header asks for: a pointer that is not null points at
//! as many elements as the length beside it says, or that length is over a limit, so that it must
//! be refused before anything is read.

const std = @import("std");
const c = @import("header");
const Input = @import("input.zig").Input;
const Room = @import("rooms.zig").Room;
const Rooms = @import("rooms.zig").Rooms;
const rooms_file = @import("rooms.zig");

pub const max_texts = 1500;
const max_block_bytes = 1 << 15;
const few_documents = 99;
const too_many = [_]u64{ (1 << 31) + 1, 1 << 32, 1 << 63, std.math.maxInt(u64) };

// Where arguments are made before they are lent; too great to be cleared for every call.
var content: [max_block_bytes]u8 = undefined;
var numbers: [max_texts + 1]u32 = undefined;
var floats: [max_texts]f32 = undefined;

pub const Arguments = struct {
    input: Input,
    rooms: *Rooms,
    /// Whether wrong arguments are made as well.
    is_spoilt: bool = false,

    /// True now and then where the call shall be spoilt.
    pub fn spoils(arguments: *Arguments) bool {
        return arguments.is_spoilt and arguments.input.byte() & 3 == 3;
    }

    /// A pointer to a copy of the content and its length in elements of a size.
    fn lend(
        arguments: *Arguments,
        pointer: anytype,
        count: *u64,
        bytes: []const u8,
        size: usize,
    ) void {
        const lent = arguments.room(bytes.len);
        @memcpy(lent.bytes, bytes);
        setAddress(pointer, @intFromPtr(lent.bytes.ptr));
        count.* = bytes.len / size;
        if (!arguments.spoils()) return;
        switch (arguments.input.byte() % 5) {
            0 => setAddress(pointer, 0),
            1 => count.* = too_many[arguments.input.byte() % too_many.len],
            2 => count.* -|= 1,
            3 => count.* = 0,
            else => {
                setAddress(pointer, 0);
                count.* = 0;
            },
        }
    }

    pub fn room(arguments: *Arguments, byte_count: usize) Room {
        const shift = if (arguments.is_spoilt) arguments.input.byte() & 7 else 0;
        return arguments.rooms.take(byte_count, shift);
    }

    /// For the library to write to.
    pub fn output(arguments: *Arguments, pointer: anytype, byte_count: usize) Room {
        const lent = arguments.room(byte_count);
        @memset(lent.bytes, rooms_file.blank);
        const is_null = arguments.spoils() and arguments.input.byte() & 1 == 1;
        setAddress(pointer, if (is_null) 0 else @intFromPtr(lent.bytes.ptr));
        return lent;
    }

    /// How much room an output has: enough, but for spoilt calls.
    pub fn capacity(arguments: *Arguments, needed: usize) usize {
        if (!arguments.spoils()) return needed;
        return @min(needed, arguments.input.byte());
    }

    pub fn text(arguments: *Arguments) c.sluice_text {
        var made: c.sluice_text = undefined;
        const bytes = arguments.input.text(&content);
        arguments.lend(&made.bytes, &made.byte_count, bytes, 1);
        return made;
    }

    pub fn textCount(arguments: *Arguments) usize {
        const input = &arguments.input;
        return if (input.is_great) input.number(u16) % max_texts else input.byte() % 12;
    }

    pub fn texts(arguments: *Arguments, count: usize) c.sluice_texts {
        const offsets = numbers[0 .. count + 1];
        offsets[0] = 0;
        var end: usize = 0;
        for (offsets[1..]) |*offset| {
            end += arguments.input.text(content[end..]).len;
            offset.* = @intCast(end);
        }
        if (arguments.spoils()) {
            const place = arguments.input.byte() % (count + 1);
            const kind = arguments.input.byte();
            offsets[place] = if (kind & 1 == 1) arguments.input.number(u32) else kind;
        }
        var made: c.sluice_texts = undefined;
        arguments.lend(&made.bytes, &made.byte_count, content[0..end], 1);
        const bytes = std.mem.sliceAsBytes(offsets);
        arguments.lend(&made.offsets, &made.offset_count, bytes, 4);
        return made;
    }

    pub const no_texts: c.sluice_texts = std.mem.zeroes(c.sluice_texts);

    /// As many as there are texts, or none.
    pub fn titles(arguments: *Arguments, count: usize) c.sluice_texts {
        if (arguments.input.byte() & 1 == 0) return no_texts;
        const is_wrong = arguments.spoils();
        return arguments.texts(if (is_wrong) count / 2 else count);
    }

    pub fn similarities(arguments: *Arguments, pointer: anytype, count: *u64, needed: usize) void {
        const values = floats[0..needed];
        const kind = arguments.input.byte();
        for (values, 0..) |*value, index| {
            const spread: f32 = @floatFromInt((index * 37 + kind) % 256);
            value.* = if (kind & 1 == 1) spread / 256 else spread / 128 - 1;
        }
        if (needed > 0 and kind >= 0xF0) {
            const great = std.math.clamp(arguments.input.float(), -1e38, 1e38);
            values[kind % needed] = @floatCast(great);
            if (std.math.isNan(values[kind % needed])) values[kind % needed] = 0;
        }
        if (needed > 0 and arguments.spoils()) {
            values[arguments.input.byte() % needed] = @floatCast(arguments.input.float());
        }
        arguments.lend(pointer, count, std.mem.sliceAsBytes(values), 4);
    }

    pub fn options(arguments: *Arguments) c.sluice_options {
        const kind = arguments.input.byte();
        var made: c.sluice_options = .{
            .alpha = 0.5,
            .k1 = 1.2,
            .b = 0.75,
            .title = 1,
            .proximity = 1,
            .normalisation = kind & 1,
            .adaptive = kind >> 1 & 1,
        };
        if (kind & 4 == 4) {
            made.alpha = arguments.share();
            made.b = arguments.share();
            made.k1 = 1000 * arguments.share();
            made.title = 1000 * arguments.share();
            made.proximity = 1000 * arguments.share();
        }
        if (arguments.spoils()) switch (arguments.input.byte() % 6) {
            0 => made.alpha = arguments.input.float(),
            1 => made.b = arguments.input.float(),
            2 => made.k1 = arguments.input.float(),
            3 => made.title = arguments.input.float(),
            4 => made.proximity = arguments.input.float(),
            else => made.normalisation = arguments.input.number(u32),
        };
        return made;
    }

    /// From 0 to 1, both of them among the likely ones.
    fn share(arguments: *Arguments) f64 {
        const byte: f64 = @floatFromInt(arguments.input.byte() & 0x7F);
        return byte / 127;
    }

    /// Of a query's own terms, or of any numbers; null for none.
    pub fn statistics(
        arguments: *Arguments,
        query: *const c.sluice_text,
        made: *c.sluice_statistics,
    ) bool {
        const kind = arguments.input.byte();
        if (kind & 1 == 0) return false;
        var hashes: [256]u32 = undefined;
        var count: usize = 0;
        if (kind & 2 == 2) {
            count = hashesOf(query, &hashes);
        } else {
            count = arguments.input.byte() % hashes.len;
            for (hashes[0..count], 0..) |*hash, index| hash.* = @intCast(index *% 0x0101_0101);
        }
        var frequencies: [256]u32 = undefined;
        for (frequencies[0..count], 0..) |*frequency, index| {
            frequency.* = @intCast(index * kind % few_documents);
        }
        made.document_count = few_documents;
        made.text_words = arguments.input.byte();
        made.title_words = arguments.input.byte();
        if (kind & 4 == 4) made.text_words = arguments.input.number(u64);
        if (kind & 8 == 8) {
            made.document_count = arguments.input.number(u64);
            const least: u64 = if (arguments.is_spoilt) 0 else few_documents;
            made.document_count = @max(made.document_count, least);
        }
        const frequency_bytes = std.mem.sliceAsBytes(frequencies[0..count]);
        const frequency_room = arguments.room(frequency_bytes.len);
        @memcpy(frequency_room.bytes, frequency_bytes);
        const is_null = arguments.spoils();
        setAddress(&made.frequencies, if (is_null) 0 else @intFromPtr(frequency_room.bytes.ptr));
        arguments.lend(&made.hashes, &made.count, std.mem.sliceAsBytes(hashes[0..count]), 4);
        // The one limit above those of texts.
        if (made.count > count) made.count = @max(made.count, 1 << 32);
        return true;
    }

    /// The hashes of a text's terms, ascending; of as many as there is room for.
    fn hashesOf(of: *const c.sluice_text, hashes: *[256]u32) usize {
        if (of.byte_count == 0 or of.byte_count > max_block_bytes or of.bytes == null) return 0;
        const ends = [_]u32{ 0, @intCast(of.byte_count) };
        var unused: [4]u32 = undefined;
        const block: c.sluice_texts = .{
            .bytes = of.bytes,
            .byte_count = of.byte_count,
            .offsets = &ends,
            .offset_count = ends.len,
        };
        var counts: c.sluice_word_counts = .{
            .hashes = hashes,
            .hash_capacity = hashes.len,
            .offsets = unused[0..2],
            .text_words = unused[2..3],
            .title_words = unused[3..4],
            .text_capacity = 1,
            .hash_count = 0,
        };
        const status = c.sluice_rerank_count_words(null, &block, &counts);
        return if (status == c.SLUICE_OK) @intCast(counts.hash_count) else 0;
    }

    /// Short names, of which few are different, so that stores meet them again.
    pub fn ids(arguments: *Arguments, count: usize) c.sluice_ids {
        var end: usize = 0;
        const first = arguments.input.byte();
        for (0..count) |index| {
            const name = (first +% index * 7) % 97;
            const id = std.fmt.bufPrint(content[end..], "c{d}\n", .{name}) catch unreachable;
            end += id.len;
        }
        end -|= 1; // no newline after the last
        if (arguments.spoils()) end = arguments.input.text(&content).len;
        var made: c.sluice_ids = undefined;
        arguments.lend(&made.bytes, &made.byte_count, content[0..end], 1);
        made.count = count;
        if (arguments.spoils()) made.count = too_many[arguments.input.byte() % too_many.len];
        return made;
    }

    /// Ids that are all different.
    pub fn differentIds(arguments: *Arguments, count: usize) c.sluice_ids {
        var end: usize = 0;
        for (0..count) |index| {
            const id = std.fmt.bufPrint(content[end..], "{d}\n", .{index}) catch unreachable;
            end += id.len;
        }
        var made: c.sluice_ids = undefined;
        arguments.lend(&made.bytes, &made.byte_count, content[0..end -| 1], 1);
        made.count = count;
        return made;
    }
};

/// Sets a pointer of any type to an address of any alignment.
fn setAddress(pointer: anytype, address: usize) void {
    @as(*usize, @ptrCast(pointer)).* = address;
}
