//! Texts as they cross the ABI, alone and packed into one block, and the checks of both. It must
//! never read a byte before its length was checked.
//!
//! Callers may hand over pointers of any alignment, hence align(1) throughout this folder.

const Misuse = @import("../status.zig").Misuse;
const Packed = @import("../core/scan.zig").Texts;

pub const max_texts = 1 << 20;
pub const max_text_bytes = 1 << 31;
pub const max_query_bytes = 1 << 20;

pub const layouts = .{ Text, Texts };

pub const Text = extern struct {
    bytes: ?[*]const u8,
    byte_count: u64,
};

pub const Texts = extern struct {
    bytes: ?[*]const u8,
    byte_count: u64,
    offsets: ?[*]align(1) const u32,
    offset_count: u64,
};

pub fn textOf(pointer: ?*align(1) const Text) Misuse![]const u8 {
    const text = (pointer orelse return error.NullPointer).*;
    return bytesOf(text.bytes, text.byte_count, max_text_bytes, error.TextTooLong);
}

pub fn queryOf(pointer: ?*align(1) const Text) Misuse![]const u8 {
    const text = (pointer orelse return error.NullPointer).*;
    return bytesOf(text.bytes, text.byte_count, max_query_bytes, error.QueryTooLong);
}

fn bytesOf(pointer: ?[*]const u8, count: u64, max: u64, too_long: Misuse) Misuse![]const u8 {
    if (count > max) return too_long;
    if (count == 0) return "";
    const bytes = pointer orelse return error.NullPointer;
    return bytes[0..@intCast(count)];
}

/// `count` texts, each within the block's bytes.
pub fn textsOf(texts: Texts, count: u64) Misuse!Packed {
    if (count > max_texts) return error.TooManyCandidates;
    if (texts.offset_count != count + 1) return error.LengthMismatch;
    const bytes = try bytesOf(texts.bytes, texts.byte_count, max_text_bytes, error.TextTooLong);
    const offset_pointer = texts.offsets orelse return error.NullPointer;
    const offsets = offset_pointer[0..@intCast(texts.offset_count)];
    for (offsets[0 .. offsets.len - 1], offsets[1..]) |start, end| {
        if (end < start) return error.OffsetsNotMonotone;
    }
    if (offsets[offsets.len - 1] > bytes.len) return error.OffsetOutOfRange;
    return .{ .bytes = bytes, .offsets = offsets };
}

/// The same for a block that may be absent, which is said by its having no offsets at all.
pub fn titlesOf(titles: Texts, count: u64) Misuse!?Packed {
    if (titles.offset_count == 0) return null;
    if (titles.offset_count != count + 1) return error.TitlesLengthMismatch;
    return try textsOf(titles, count);
}
