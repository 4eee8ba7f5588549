//! What words texts hold: sluice_rerank_analyze, _highlight and _count_words. Where the caller's
//! buffer is too small, the count that it needs is written all the same.

const std = @import("std");
const Highlighter = highlight_file.Highlighter;
const highlight_file = @import("../core/highlight.zig");
const Query = @import("../core/query.zig").Query;
const Scratch = @import("scratch.zig").Scratch;
const sequence = @import("../core/sequence.zig");
const status = @import("../status.zig");
const terms_file = @import("../core/terms.zig");
const text_file = @import("text.zig");

const Failure = status.Failure;
const Text = text_file.Text;
const Texts = text_file.Texts;

pub const layouts = .{ PackedTerms, Span, Spans, WordCounts };

pub const PackedTerms = extern struct {
    bytes: ?[*]u8,
    byte_capacity: u64,
    offsets: ?[*]align(1) u32,
    offset_capacity: u64,
    byte_count: u64,
    term_count: u64,
};

const Span = highlight_file.Span;

pub const Spans = extern struct {
    spans: ?[*]align(1) Span,
    capacity: u64,
    offsets: ?[*]align(1) u32,
    text_capacity: u64,
    count: u64,
};

pub const WordCounts = extern struct {
    hashes: ?[*]align(1) u32,
    hash_capacity: u64,
    offsets: ?[*]align(1) u32,
    text_words: ?[*]align(1) u32,
    title_words: ?[*]align(1) u32,
    text_capacity: u64,
    hash_count: u64,
};

export fn sluice_rerank_analyze(
    text: ?*align(1) const Text,
    terms: ?*align(1) PackedTerms,
) u32 {
    return status.codeOf(analyze(text, terms));
}

export fn sluice_rerank_highlight(
    query: ?*align(1) const Text,
    texts: ?*align(1) const Texts,
    spans: ?*align(1) Spans,
) u32 {
    return status.codeOf(highlight(query, texts, spans));
}

export fn sluice_rerank_count_words(
    titles: ?*align(1) const Texts,
    texts: ?*align(1) const Texts,
    counts: ?*align(1) WordCounts,
) u32 {
    return status.codeOf(countWords(titles, texts, counts));
}

fn analyze(text: ?*align(1) const Text, output: ?*align(1) PackedTerms) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const out = output orelse return error.NullPointer;
    const bytes = try text_file.textOf(text);
    const terms = try terms_file.unique(scratch.allocator(), bytes);

    var byte_count: u64 = 0;
    for (terms) |term| byte_count += term.len;
    out.byte_count = byte_count;
    out.term_count = terms.len;
    if (out.byte_capacity < byte_count or out.offset_capacity < terms.len + 1) {
        return error.BufferTooSmall;
    }
    // Parts and compounds repeat what words say, and lower case can take more bytes.
    if (byte_count > std.math.maxInt(u32)) return error.TextTooLong;
    const offsets = out.offsets orelse return error.NullPointer;
    if (out.bytes == null and byte_count > 0) return error.NullPointer;

    offsets[0] = 0;
    var end: u32 = 0;
    for (terms, 1..) |term, index| {
        @memcpy(out.bytes.?[end..][0..term.len], term);
        end += @intCast(term.len);
        offsets[index] = end;
    }
}

fn highlight(
    given_query: ?*align(1) const Text,
    given_texts: ?*align(1) const Texts,
    output: ?*align(1) Spans,
) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const arena = scratch.allocator();
    const out = output orelse return error.NullPointer;
    const query_bytes = try text_file.queryOf(given_query);
    const block = (given_texts orelse return error.NullPointer).*;
    if (block.offset_count == 0) return error.LengthMismatch;
    const texts = try text_file.textsOf(block, block.offset_count - 1);
    if (out.text_capacity < texts.count()) return error.BufferTooSmall;
    const offsets = out.offsets orelse return error.NullPointer;
    // No text holds more spans than bytes.
    const capacity: usize = @intCast(@min(out.capacity, texts.bytes.len));
    const spans: []align(1) Span = if (out.spans) |first| first[0..capacity] else &.{};
    if (out.spans == null and out.capacity > 0) return error.NullPointer;
    const query = try Query.init(arena, query_bytes);
    const highlighter = try Highlighter.init(arena, &query);

    var count: usize = 0;
    offsets[0] = 0;
    for (0..texts.count()) |index| {
        count += highlighter.mark(texts.get(index), spans[@min(count, spans.len)..]);
        offsets[index + 1] = @intCast(count);
    }
    out.count = count;
    if (count > out.capacity) return error.BufferTooSmall;
}

fn countWords(
    given_titles: ?*align(1) const Texts,
    given_texts: ?*align(1) const Texts,
    output: ?*align(1) WordCounts,
) Failure!void {
    var scratch: Scratch = .init();
    defer scratch.deinit();
    const arena = scratch.allocator();
    const out = output orelse return error.NullPointer;
    const texts_block = (given_texts orelse return error.NullPointer).*;
    if (texts_block.offset_count == 0) return error.LengthMismatch;
    const texts = try text_file.textsOf(texts_block, texts_block.offset_count - 1);
    const titles = if (given_titles) |block|
        try text_file.titlesOf(block.*, texts_block.offset_count - 1)
    else
        null;
    if (out.text_capacity < texts.count()) return error.BufferTooSmall;
    if (out.hashes == null and out.hash_capacity > 0) return error.NullPointer;
    const offsets = out.offsets orelse return error.NullPointer;
    const has_counts = out.text_words != null and out.title_words != null;
    if (!has_counts and texts.count() > 0) return error.NullPointer;

    var reader: sequence.Reader = .{};
    var hashes: std.ArrayList(u32) = .empty;
    var hash_count: u64 = 0;
    offsets[0] = 0;
    for (0..texts.count()) |index| {
        hashes.clearRetainingCapacity();
        const text = try reader.read(arena, texts.get(index));
        out.text_words.?[index] = text.length;
        try hashes.appendSlice(arena, text.hashes);
        const title = try reader.read(arena, if (titles) |block| block.get(index) else "");
        out.title_words.?[index] = title.length;
        try hashes.appendSlice(arena, title.hashes);

        std.mem.sortUnstable(u32, hashes.items, {}, std.sort.asc(u32));
        var previous: u32 = 0; // no term
        for (hashes.items) |hash| {
            if (hash == previous) continue;
            previous = hash;
            if (hash_count < out.hash_capacity) out.hashes.?[@intCast(hash_count)] = hash;
            hash_count += 1;
        }
        // Over 2 GiB of text and titles cannot hold as many terms as overflow this.
        offsets[index + 1] = std.math.cast(u32, hash_count) orelse return error.TextTooLong;
    }
    out.hash_count = hash_count;
    if (hash_count > out.hash_capacity) return error.BufferTooSmall;
}
