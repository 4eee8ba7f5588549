//! sluice_rerank_group_duplicates: which texts nearly repeat an earlier one.

const duplicates = @import("../core/duplicates.zig");
const status = @import("../status.zig");
const text_file = @import("text.zig");

const Failure = status.Failure;
const Scratch = @import("scratch.zig").Scratch;
const Texts = text_file.Texts;

export fn sluice_rerank_group_duplicates(
    texts: ?*align(1) const Texts,
    resemblance: f64,
    leaders: ?[*]align(1) i32,
    capacity: u64,
) u32 {
    return status.codeOf(groupDuplicates(texts, resemblance, leaders, capacity));
}

fn groupDuplicates(
    given: ?*align(1) const Texts,
    resemblance: f64,
    leaders: ?[*]align(1) i32,
    capacity: u64,
) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const block = (given orelse return error.NullPointer).*;
    if (block.offset_count == 0) return error.LengthMismatch;
    const count = block.offset_count - 1;
    if (count > duplicates.max_texts) return error.TooManyTextsToGroup;
    if (block.byte_count > duplicates.max_bytes) return error.TooManyTextsToGroup;
    const packed_texts = try text_file.textsOf(block, count);
    // False for NaN too.
    if (!(resemblance > 0 and resemblance <= 1)) return error.ResemblanceOutOfRange;
    if (capacity < count) return error.BufferTooSmall;
    if (count == 0) return;
    const out = leaders orelse return error.NullPointer;

    const arena = scratch.allocator();
    const texts = try arena.alloc([]const u8, packed_texts.count());
    for (texts, 0..) |*text, index| text.* = packed_texts.get(index);
    // Written at the end: memory may run out on the way.
    const found = try arena.alloc(i32, texts.len);
    try duplicates.group(arena, texts, resemblance, found);
    @memcpy(out[0..found.len], found);
}
