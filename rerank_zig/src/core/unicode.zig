//! Code points: decoding UTF-8, word class, simple lower case. Pure; must never fail on any bytes.
//!
//! The properties come from unicode_tables.zig, so they are those of one Unicode version on every
//! machine.

const std = @import("std");
const tables = @import("unicode_tables.zig");

pub const Class = tables.Class;
pub const version = tables.version;

/// One step through a text. `code_point` is null where the byte begins no well-formed sequence
/// (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF); then one byte is consumed.
pub const Decoded = struct { code_point: ?u21, byte_count: u3 };

const malformed: Decoded = .{ .code_point = null, .byte_count = 1 };

/// Decodes the code point at the start of `bytes`, which must not be empty.
pub fn decode(bytes: []const u8) Decoded {
    std.debug.assert(bytes.len > 0);
    const lead = bytes[0];
    if (lead < 0x80) return .{ .code_point = lead, .byte_count = 1 };
    const byte_count: u3 = switch (lead) {
        0xC2...0xDF => 2,
        0xE0...0xEF => 3,
        0xF0...0xF4 => 4,
        else => return malformed,
    };
    if (bytes.len < byte_count) return malformed;
    var code_point: u21 = lead & (@as(u8, 0x7F) >> byte_count);
    for (bytes[1..byte_count]) |byte| {
        if (byte & 0xC0 != 0x80) return malformed;
        code_point = (code_point << 6) | (byte & 0x3F);
    }
    const well_formed = switch (byte_count) {
        3 => code_point >= 0x800 and (code_point < 0xD800 or code_point > 0xDFFF),
        4 => code_point >= 0x10000 and code_point <= 0x10FFFF,
        else => true,
    };
    return if (well_formed) .{ .code_point = code_point, .byte_count = byte_count } else malformed;
}

/// Writes a code point, as decode or lower returned it, and returns the bytes written.
pub fn encode(code_point: u21, buffer: *[4]u8) u3 {
    if (code_point < 0x80) {
        buffer[0] = @intCast(code_point);
        return 1;
    }
    if (code_point < 0x800) {
        buffer[0] = 0xC0 | @as(u8, @intCast(code_point >> 6));
        buffer[1] = continuation(code_point);
        return 2;
    }
    if (code_point < 0x10000) {
        buffer[0] = 0xE0 | @as(u8, @intCast(code_point >> 12));
        buffer[1] = continuation(code_point >> 6);
        buffer[2] = continuation(code_point);
        return 3;
    }
    buffer[0] = 0xF0 | @as(u8, @intCast(code_point >> 18));
    buffer[1] = continuation(code_point >> 12);
    buffer[2] = continuation(code_point >> 6);
    buffer[3] = continuation(code_point);
    return 4;
}

fn continuation(bits: u21) u8 {
    return 0x80 | @as(u8, @intCast(bits & 0x3F));
}

/// Letters are general categories L*, digits N*, marks M*; all else separates words.
pub fn classify(code_point: u21) Class {
    if (code_point < ascii_classes.len) return ascii_classes[code_point];
    return classifyBySearch(code_point);
}

/// The simple lower-case mapping: always one code point, whatever stands around it.
pub fn lower(code_point: u21) u21 {
    if (code_point < 0x80) return std.ascii.toLower(@intCast(code_point));
    const range = find(tables.LowerRange, &tables.lower, code_point) orelse return code_point;
    if ((code_point - range.first) % range.stride != 0) return code_point;
    return @intCast(@as(i32, code_point) + range.delta);
}

const ascii_classes: [128]Class = classes: {
    @setEvalBranchQuota(10_000);
    var classes: [128]Class = undefined;
    for (&classes, 0..) |*class, code_point| class.* = classifyBySearch(code_point);
    break :classes classes;
};

fn classifyBySearch(code_point: u21) Class {
    const range = find(tables.ClassRange, &tables.classes, code_point) orelse return .separator;
    return range.class;
}

fn find(comptime Range: type, ranges: []const Range, code_point: u21) ?Range {
    var low: usize = 0;
    var high: usize = ranges.len;
    while (low < high) {
        const middle = low + (high - low) / 2;
        if (ranges[middle].last < code_point) low = middle + 1 else high = middle;
    }
    if (low == ranges.len or ranges[low].first > code_point) return null;
    return ranges[low];
}

const testing = std.testing;

test "every code point survives encode and decode" {
    var code_point: u21 = 0;
    while (code_point <= 0x10FFFF) : (code_point += 1) {
        if (code_point == 0xD800) code_point = 0xE000;
        var buffer: [4]u8 = undefined;
        const byte_count = encode(code_point, &buffer);
        const decoded = decode(buffer[0..byte_count]);
        try testing.expectEqual(code_point, decoded.code_point.?);
        try testing.expectEqual(byte_count, decoded.byte_count);
        if (byte_count > 1) {
            try testing.expectEqual(null, decode(buffer[0 .. byte_count - 1]).code_point);
        }
    }
}

test "malformed sequences consume one byte" {
    const sequences = [_][]const u8{
        "\x80",             "\xC0\x80",         "\xC1\xBF",         "\xE0\x80\x80", "\xED\xA0\x80",
        "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",         "\xE2\x82",
        "\xC3A",            "\xE2\x82A",
    };
    for (sequences) |sequence| try testing.expectEqual(malformed, decode(sequence));
}

test "classes of well-known code points" {
    try testing.expectEqual(Class.letter, classify('q'));
    try testing.expectEqual(Class.digit, classify('7'));
    try testing.expectEqual(Class.separator, classify('_'));
    try testing.expectEqual(Class.separator, classify('\''));
    try testing.expectEqual(Class.letter, classify('é'));
    try testing.expectEqual(Class.letter, classify('語'));
    try testing.expectEqual(Class.mark, classify(0x0301));
    try testing.expectEqual(Class.digit, classify('½'));
    try testing.expectEqual(Class.digit, classify(0x0664)); // Arabic-Indic four
    try testing.expectEqual(Class.separator, classify(0x2014)); // em dash
    try testing.expectEqual(Class.separator, classify(0x10FFFF));
}

test "lower case of well-known code points" {
    try testing.expectEqual('z', lower('Z'));
    try testing.expectEqual('1', lower('1'));
    try testing.expectEqual('é', lower('É'));
    try testing.expectEqual('ā', lower('Ā'));
    try testing.expectEqual('ā', lower('ā'));
    try testing.expectEqual('σ', lower('Σ'));
    try testing.expectEqual('i', lower(0x130));
    try testing.expectEqual('я', lower('Я'));
    try testing.expectEqual(0x2C65, lower(0x023A)); // two bytes become three
    try testing.expectEqual(0x10428, lower(0x10400));
}

test "tables ascend without overlap" {
    for (tables.classes[0 .. tables.classes.len - 1], tables.classes[1..]) |left, right| {
        try testing.expect(left.first <= left.last and left.last < right.first);
    }
    for (tables.lower[0 .. tables.lower.len - 1], tables.lower[1..]) |left, right| {
        try testing.expect(left.first <= left.last and left.last < right.first);
    }
}
