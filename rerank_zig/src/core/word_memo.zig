//! Remembers which term short words hold, so that a word that comes again is neither stemmed nor
//! hashed again. Pure; a word may push out another one, which then is read anew.

const std = @import("std");

pub const WordMemo = struct {
    pub const max_word_len = 16;
    const slot_count = 256;
    const nothing = std.math.maxInt(u16);

    pub const empty: WordMemo = .{ .keys = @splat(0), .ordinals = @splat(nothing) };

    keys: [slot_count]u128,
    ordinals: [slot_count]u16,

    /// The first `len` of these bytes, letters of ASCII in any case, at least one of them.
    pub fn keyOf(bytes: *const [max_word_len]u8, len: usize) u128 {
        const lower: @Vector(max_word_len, u8) = @splat(0x20);
        const folded: [max_word_len]u8 = @as(@Vector(max_word_len, u8), bytes.*) | lower;
        const unused: u7 = @intCast(8 * (max_word_len - len));
        return std.mem.readInt(u128, &folded, .little) << unused;
    }

    /// Null where the word is not remembered; then, inside, whether it holds a term.
    pub fn get(memo: *const WordMemo, key: u128) ??u16 {
        const slot = slotOf(key);
        if (memo.keys[slot] != key) return null;
        const ordinal = memo.ordinals[slot];
        return @as(?u16, if (ordinal == nothing) null else ordinal);
    }

    pub fn put(memo: *WordMemo, key: u128, ordinal: ?u16) void {
        const slot = slotOf(key);
        memo.keys[slot] = key;
        memo.ordinals[slot] = ordinal orelse nothing;
    }

    fn slotOf(key: u128) u8 {
        const halves = @as(u64, @truncate(key)) ^ std.math.rotl(u64, @truncate(key >> 64), 32);
        return @truncate(halves *% 0x9E37_79B9_7F4A_7C15 >> 56);
    }
};

test "what was put is got, in any case, until it is pushed out" {
    var memo: WordMemo = .empty;
    var numbers: usize = 0;
    for ("abcdefghijklmnop", 1..) |_, len| {
        const key = WordMemo.keyOf("abcdefghijklmnop", len);
        try std.testing.expectEqual(null, memo.get(key));
        memo.put(key, if (len % 2 == 0) null else @intCast(len));
        const found = memo.get(WordMemo.keyOf("abCDefghijkLMNOP", len)).?;
        if (len % 2 == 0) try std.testing.expectEqual(null, found) else numbers += found.?;
    }
    try std.testing.expectEqual(64, numbers);
    for (0..26 * 26) |number| {
        const pair = [_]u8{ @intCast('a' + number % 26), @intCast('a' + number / 26) };
        const key = WordMemo.keyOf(&(pair ++ "x".* ** 14), 3);
        memo.put(key, 7);
        try std.testing.expectEqual(7, memo.get(key).?.?);
    }
    var remembered: usize = 0;
    for (1..17) |len| {
        const is_remembered = memo.get(WordMemo.keyOf("abcdefghijklmnop", len)) != null;
        remembered += @intFromBool(is_remembered);
    }
    try std.testing.expect(remembered < 16);
}
