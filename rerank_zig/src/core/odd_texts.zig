//! Texts for tests of whatever reads words: made of the words, joints and bytes that make trouble.

const std = @import("std");

const pieces = [_][]const u8{
    "run",  "Running",  "region", "Regions",   "HTTP",     "Server",  "node", "Nodes", "42",    "7",
    "x",    "is",       "the",    "of",        "nn",       "HA",      "die",  "dying", "skies",
    "é",
    "Ö",
    "語",
    "½",
    "a",    "\u{301}",  "ab",
    "İ",
    "\xC3", "\u{212A}", "\xFF",   "usability", "\xE2\x82", "a" ** 15,
};
const joints = [_][]const u8{
    "",   "", "", " ", " ", "-", "_", ".", "/", ":", "@", "#", "\\", "'",
    "—",
    "\n",
};
const longest = 20;

/// Pieces and joints by turns, in a buffer of more than `longest` bytes.
pub fn words(random: std.Random, buffer: []u8) []const u8 {
    var len: usize = 0;
    const wanted = random.uintLessThan(usize, buffer.len - longest);
    while (len < wanted) {
        for ([_][]const []const u8{ &pieces, &joints }) |choices| {
            const chosen = choices[random.uintLessThan(usize, choices.len)];
            @memcpy(buffer[len..][0..chosen.len], chosen);
            len += chosen.len;
        }
    }
    return buffer[0..len];
}

/// Now and then any bytes, else `words`.
pub fn anything(random: std.Random, buffer: []u8) []const u8 {
    if (random.uintLessThan(u8, 8) != 0) return words(random, buffer);
    random.bytes(buffer);
    return buffer[0..random.uintLessThan(usize, buffer.len)];
}
