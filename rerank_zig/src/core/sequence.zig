//! A field as hashes by position: what stays of a text that is to be scanned many times. Pure.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

pub const Sequence = struct {
    /// The hash of the whole word at each position, 0 where it is a stop word. Its length is that
    /// of the field.
    words: []const u32,
    /// Hashes of parts and compounds, and beside each its position; positions ascend, and at one
    /// position the order is the tokenizer's.
    extras: []const u32,
    extra_positions: []const u32,
};

/// Reads texts one after the other into the same memory. All of it comes from the allocator that
/// every call is given.
pub const Reader = struct {
    words: std.ArrayList(u32) = .empty,
    extras: std.ArrayList(u32) = .empty,
    extra_positions: std.ArrayList(u32) = .empty,

    pub fn deinit(reader: *Reader, allocator: Allocator) void {
        reader.words.deinit(allocator);
        reader.extras.deinit(allocator);
        reader.extra_positions.deinit(allocator);
    }

    /// The sequence of a text; it lives until the next call.
    pub fn read(reader: *Reader, allocator: Allocator, text: []const u8) Allocator.Error!Sequence {
        reader.words.clearRetainingCapacity();
        reader.extras.clearRetainingCapacity();
        reader.extra_positions.clearRetainingCapacity();
        var tokenizer = Tokenizer.init(text);
        while (tokenizer.next()) |token| {
            if (token.term.kind == .word) {
                try reader.appendStopWords(allocator, token.position);
                try reader.words.append(allocator, token.term.hash());
            } else {
                try reader.extras.append(allocator, token.term.hash());
                try reader.extra_positions.append(allocator, token.position);
            }
        }
        try reader.appendStopWords(allocator, tokenizer.word_count);
        return .{
            .words = reader.words.items,
            .extras = reader.extras.items,
            .extra_positions = reader.extra_positions.items,
        };
    }

    /// Fills up to a position that more than stop words stand at, or to the end.
    fn appendStopWords(reader: *Reader, allocator: Allocator, position: u32) Allocator.Error!void {
        try reader.words.appendNTimes(allocator, 0, position - reader.words.items.len);
    }
};

test "words by position, extras beside" {
    const hashOf = @import("tokenizer.zig").hashOf;
    const allocator = std.testing.allocator;
    var reader: Reader = .{};
    defer reader.deinit(allocator);
    _ = try reader.read(allocator, "something else, read before");
    const sequence = try reader.read(allocator, "the to_be runs: dataNodes of_");
    try std.testing.expectEqualSlices(u32, &.{
        0, 0, 0, hashOf(.word, "run"), hashOf(.word, "datanod"), 0,
    }, sequence.words);
    try std.testing.expectEqualSlices(u32, &.{
        hashOf(.compound, "to_be"), hashOf(.part, "data"), hashOf(.part, "node"),
    }, sequence.extras);
    try std.testing.expectEqualSlices(u32, &.{ 1, 4, 4 }, sequence.extra_positions);

    const nothing = try reader.read(allocator, " ... ");
    try std.testing.expectEqual(0, nothing.words.len);
}
