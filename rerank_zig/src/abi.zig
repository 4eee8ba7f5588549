//! The C ABI of include/sluice_rerank.h, gathered: one file a topic under abi/, each of which
//! exports its functions.
//!
//! Every function checks null, shape and bounds of what it is given before it reads it, answers
//! with a status and lets its scratch end with the call. None may abort the process, whatever a
//! caller passes as a value, and none holds a thought about ranking: that is the core's.

const builtin = @import("builtin");
const std = @import("std");
const Status = @import("status.zig").Status;

/// Raised by every change of a layout, of a meaning or of a status.
const abi_version = 3;

comptime {
    _ = @import("abi/duplicates.zig");
    _ = @import("abi/score.zig");
    _ = @import("abi/store.zig");
    _ = @import("abi/words.zig");
}

/// Every struct of the header, in its order.
const layouts = @import("abi/text.zig").layouts ++
    @import("abi/score.zig").layouts ++
    @import("abi/words.zig").layouts ++
    @import("abi/store.zig").layouts;

/// A panic would be a defect of this library. It says what broke and traps, without the machinery
/// of stack traces, so that the library needs nothing from the process that loads it.
pub const panic = std.debug.FullPanic(trap);

fn trap(message: []const u8, _: ?usize) noreturn {
    if (builtin.os.tag == .linux) {
        const prefix = "libsluice_rerank: ";
        _ = std.os.linux.write(2, prefix, prefix.len);
        _ = std.os.linux.write(2, message.ptr, message.len);
        _ = std.os.linux.write(2, "\n", 1);
    }
    @trap();
}

export fn sluice_rerank_abi_version() u32 {
    return abi_version;
}

export fn sluice_rerank_status_message(code: u32) [*:0]const u8 {
    const status = std.enums.fromInt(Status, code) orelse return "unknown status";
    return status.message();
}

test {
    _ = @import("core/classes.zig");
    _ = @import("core/collection.zig");
    _ = @import("core/duplicates.zig");
    _ = @import("core/fusion.zig");
    _ = @import("core/highlight.zig");
    _ = @import("core/prefixes.zig");
    _ = @import("core/query.zig");
    _ = @import("core/scan.zig");
    _ = @import("core/scan_raw.zig");
    _ = @import("core/scan_sequence.zig");
    _ = @import("core/scoring.zig");
    _ = @import("core/sequence.zig");
    _ = @import("core/shingles.zig");
    _ = @import("core/stemmer.zig");
    _ = @import("core/stopwords.zig");
    _ = @import("core/store.zig");
    _ = @import("core/tallies.zig");
    _ = @import("core/terms.zig");
    _ = @import("core/tokenizer.zig");
    _ = @import("core/unfilled.zig");
    _ = @import("core/unicode.zig");
    _ = @import("core/word_blocks.zig");
    _ = @import("core/word_memo.zig");
}

/// Defined in header_layout.c: a size and then the offsets of the fields, struct after struct.
extern fn sluice_header_layout(count: *usize) [*]const usize;
extern const sluice_header_constants: [3]u64;

test "the header and this library lay out every struct alike" {
    var count: usize = undefined;
    const header = sluice_header_layout(&count);
    var index: usize = 0;
    inline for (layouts) |Struct| {
        const fields = std.meta.fields(Struct);
        try std.testing.expect(index + 1 + fields.len <= count);
        try std.testing.expectEqual(header[index], @sizeOf(Struct));
        inline for (fields, 1..) |field, place| {
            try std.testing.expectEqual(header[index + place], @offsetOf(Struct, field.name));
        }
        index += 1 + fields.len;
    }
    try std.testing.expectEqual(count, index);
    try std.testing.expectEqual(sluice_header_constants[0], abi_version);
    try std.testing.expectEqual(sluice_header_constants[1], std.enums.values(Status).len);
    const last = std.enums.values(Status)[std.enums.values(Status).len - 1];
    try std.testing.expectEqual(sluice_header_constants[2], @intFromEnum(last));
}
