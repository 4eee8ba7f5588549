//! English function words, which are never index terms. Pure.
//!
//! A word belongs here when most texts hold it and no technical term is spelled like it. What the
//! list leaves out, inverse document frequency weighs down; so the list is short on purpose.

const std = @import("std");

/// A word of up to eight bytes as one number, zero-padded; no longer word is in the list.
fn keyOf(word: []const u8) ?u64 {
    if (word.len == 0 or word.len > 8) return null;
    var key: u64 = 0;
    for (word) |byte| key = key << 8 | byte;
    return key;
}

pub fn contains(word: []const u8) bool {
    const key = keyOf(word) orelse return false;
    var slot = slotOf(key);
    while (slots[slot] != 0) : (slot = (slot + 1) % slots.len) {
        if (slots[slot] == key) return true;
    }
    return false;
}

/// Multiplicative hashing into a table a quarter full, probed linearly.
fn slotOf(key: u64) usize {
    return @intCast((key *% 0x9E37_79B9_7F4A_7C15) >> (64 - 8));
}

const slots: [256]u64 = table: {
    @setEvalBranchQuota(20_000);
    var table: [256]u64 = @splat(0);
    for (list) |word| {
        const key = keyOf(word).?;
        var slot = slotOf(key);
        while (table[slot] != 0) slot = (slot + 1) % table.len;
        table[slot] = key;
    }
    break :table table;
};

const list = [_][]const u8{
    "a",    "an",    "and",    "are",   "as",   "at",    "be",   "been", "being", "but",
    "by",   "can",   "could",  "did",   "do",   "does",  "for",  "from", "had",   "has",
    "have", "he",    "her",    "here",  "his",  "how",   "i",    "if",   "in",    "into",
    "is",   "it",    "its",    "me",    "my",   "no",    "not",  "of",   "on",    "or",
    "our",  "she",   "should", "so",    "such", "than",  "that", "the",  "their", "them",
    "then", "there", "these",  "they",  "this", "those", "to",   "was",  "we",    "were",
    "what", "when",  "where",  "which", "who",  "whom",  "why",  "will", "with",  "would",
    "you",  "your",
};

test "every word of the list is found" {
    for (list) |word| try std.testing.expect(contains(word));
}

test "function words are in, subjects are out" {
    for ([_][]const u8{ "a", "the", "should", "your" }) |word| {
        try std.testing.expect(contains(word));
    }
    for ([_][]const u8{ "", "cluster", "t", "The", "yours" }) |word| {
        try std.testing.expect(!contains(word));
    }
}
