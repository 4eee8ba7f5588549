//! A field as hashes by position: what stays of a text that is to be scanned many times. Pure.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Tokenizer = @import("tokenizer.zig").Tokenizer;

pub const Sequence = struct {
    /// The terms' hashes in the tokenizer's order, and beside each its position; positions ascend.
    hashes: []const u32,
    positions: []const u32,
    /// How many words the field has, stop words too.
    length: u32,

    pub const nothing: Sequence = .{ .hashes = &.{}, .positions = &.{}, .length = 0 };
};

/// Reads texts one after the other into the same memory. All of it comes from the allocator that
/// every call is given.
pub const Reader = struct {
    hashes: std.ArrayList(u32) = .empty,
    positions: std.ArrayList(u32) = .empty,

    pub fn deinit(reader: *Reader, allocator: Allocator) void {
        reader.hashes.deinit(allocator);
        reader.positions.deinit(allocator);
    }

    /// The sequence of a text; it lives until the next call.
    pub fn read(reader: *Reader, allocator: Allocator, text: []const u8) Allocator.Error!Sequence {
        reader.hashes.clearRetainingCapacity();
        reader.positions.clearRetainingCapacity();
        var tokenizer = Tokenizer.init(text);
        while (tokenizer.next()) |token| {
            try reader.hashes.append(allocator, token.term.hash());
            try reader.positions.append(allocator, token.position);
        }
        return .{
            .hashes = reader.hashes.items,
            .positions = reader.positions.items,
            .length = tokenizer.word_count,
        };
    }
};

test "terms by position, stop words counted" {
    const hashOf = @import("tokenizer.zig").hashOf;
    const allocator = std.testing.allocator;
    var reader: Reader = .{};
    defer reader.deinit(allocator);
    _ = try reader.read(allocator, "something else, read before");
    const sequence = try reader.read(allocator, "the to_be runs: dataNodes of_");
    try std.testing.expectEqualSlices(u32, &.{
        hashOf(.compound, "to_be"), hashOf(.word, "run"),  hashOf(.word, "datanod"),
        hashOf(.part, "data"),      hashOf(.part, "node"),
    }, sequence.hashes);
    try std.testing.expectEqualSlices(u32, &.{ 1, 3, 4, 4, 4 }, sequence.positions);
    try std.testing.expectEqual(6, sequence.length);
    try std.testing.expectEqualDeep(Sequence.nothing, try reader.read(allocator, " ... "));
}
