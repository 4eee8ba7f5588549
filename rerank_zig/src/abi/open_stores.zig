//! The stores that are open, each with its lock, under handles: a handle is a number made of a
//! place in a table and of how many stores that place has had, so that any number is safe to pass.
//! A closed store is given back by whoever uses it last; it must never go while somebody does, and
//! nobody ever waits for that.

const builtin = @import("builtin");
const std = @import("std");
const core = @import("../core/store.zig");
const linux = std.os.linux;
const pages = @import("pages.zig");

const max_stores = 64;

pub const OpenStore = struct {
    memory: pages.Pages,
    store: core.Store,
    /// Shared by all but `insert`.
    lock: std.Io.RwLock = .init,
    hits: std.atomic.Value(u64) = .init(0),
    misses: std.atomic.Value(u64) = .init(0),

    fn init(max_bytes: u64) error{OutOfMemory}!OpenStore {
        var secret: core.Secret = undefined;
        try fillRandomly(&secret);
        const memory = try map(@intCast(@min(max_bytes, core.max_memory)));
        return .{ .memory = memory, .store = .init(memory, secret) };
    }

    fn deinit(open_store: *OpenStore) void {
        if (open_store.memory.len > 0) pages.unmap(open_store.memory);
        open_store.* = undefined;
    }

    pub fn lockShared(open_store: *OpenStore) void {
        open_store.lock.lockSharedUncancelable(futex);
    }

    pub fn unlockShared(open_store: *OpenStore) void {
        open_store.lock.unlockShared(futex);
    }

    pub fn lockAlone(open_store: *OpenStore) void {
        open_store.lock.lockUncancelable(futex);
    }

    pub fn unlockAlone(open_store: *OpenStore) void {
        open_store.lock.unlock(futex);
    }

    pub fn count(open_store: *OpenStore, hits: u64, misses: u64) void {
        if (hits > 0) _ = open_store.hits.fetchAdd(hits, .monotonic);
        if (misses > 0) _ = open_store.misses.fetchAdd(misses, .monotonic);
    }
};

const State = packed struct(u64) {
    /// Lowest, so that adding one to the state adds one user.
    users: u30 = 0,
    phase: enum(u2) { free, opening, open, closing } = .free,
    /// How many stores the place has had; 0 is none's, so 0 is nobody's handle.
    generation: u32 = 0,
};

const Place = struct {
    state: std.atomic.Value(u64) = .init(@bitCast(State{})),
    open_store: OpenStore = undefined,

    fn load(place: *const Place) State {
        return @bitCast(place.state.load(.acquire));
    }

    fn exchange(place: *Place, expected: State, new: State) bool {
        const was = place.state.cmpxchgStrong(@bitCast(expected), @bitCast(new), .acq_rel, .monotonic);
        return was == null;
    }

    fn free(place: *Place, generation: u32) void {
        place.open_store.deinit();
        place.state.store(@bitCast(State{ .generation = generation }), .release);
    }
};

var places: [max_stores]Place = @splat(.{});

pub fn open(max_bytes: u64) error{ TooManyStores, OutOfMemory }!u64 {
    for (&places, 0..) |*place, index| {
        const state = place.load();
        if (state.phase != .free) continue;
        const generation = @max(1, state.generation +% 1);
        if (!place.exchange(state, .{ .phase = .opening, .generation = generation })) continue;
        place.open_store = OpenStore.init(max_bytes) catch |failure| {
            place.state.store(@bitCast(State{ .generation = generation }), .release);
            return failure;
        };
        const opened: State = .{ .phase = .open, .generation = generation };
        place.state.store(@bitCast(opened), .release);
        return @as(u64, generation) << 32 | index;
    }
    return error.TooManyStores;
}

/// The store, to be given back by `release`.
pub fn acquire(handle: u64) error{UnknownStore}!*OpenStore {
    const place = try placeOf(handle);
    while (true) {
        const state = try openState(place, handle);
        var used = state;
        used.users += 1;
        if (place.exchange(state, used)) return &place.open_store;
    }
}

pub fn release(open_store: *OpenStore) void {
    const place: *Place = @alignCast(@fieldParentPtr("open_store", open_store));
    const state: State = @bitCast(place.state.fetchSub(1, .acq_rel));
    if (state.users == 1 and state.phase == .closing) place.free(state.generation);
}

/// From now on nobody finds the store.
pub fn close(handle: u64) error{UnknownStore}!void {
    const place = try placeOf(handle);
    while (true) {
        const state = try openState(place, handle);
        var closing = state;
        closing.phase = .closing;
        if (!place.exchange(state, closing)) continue;
        if (state.users == 0) place.free(state.generation);
        return;
    }
}

fn placeOf(handle: u64) error{UnknownStore}!*Place {
    const index: u32 = @truncate(handle);
    if (index >= places.len) return error.UnknownStore;
    return &places[index];
}

fn openState(place: *const Place, handle: u64) error{UnknownStore}!State {
    const state = place.load();
    if (state.phase != .open or state.generation != handle >> 32) return error.UnknownStore;
    return state;
}

/// Great pages where the system has them, since chunks are read all over the memory.
fn map(byte_count: usize) error{OutOfMemory}!pages.Pages {
    if (byte_count == 0) return &.{};
    const memory = try pages.map(byte_count);
    // A wish; without it all works too.
    if (builtin.os.tag == .linux) _ = linux.madvise(memory.ptr, memory.len, linux.MADV.HUGEPAGE);
    return memory;
}

fn fillRandomly(bytes: []u8) error{OutOfMemory}!void {
    if (builtin.os.tag != .linux) {
        return std.Io.Threaded.global_single_threaded.io().randomSecure(bytes) catch
            error.OutOfMemory;
    }
    var filled: usize = 0;
    while (filled < bytes.len) {
        const result = linux.getrandom(bytes[filled..].ptr, bytes.len - filled, 0);
        switch (linux.errno(result)) {
            .SUCCESS => filled += result,
            .INTR => {},
            // Only a system that forbids the call gets here.
            else => return error.OutOfMemory,
        }
    }
}

/// What std.Io.RwLock needs of an Io, and nothing else of it: no event loop comes into the process
/// that loads this library.
const futex: std.Io = if (builtin.os.tag == .linux)
    .{ .userdata = null, .vtable = &futex_functions }
else
    std.Io.Threaded.global_single_threaded.io();

const futex_functions: std.Io.VTable = functions: {
    var functions = std.Io.failing.vtable.*;
    functions.futexWaitUncancelable = wait;
    functions.futexWake = wake;
    break :functions functions;
};

fn wait(_: ?*anyopaque, value: *const u32, expected: u32) void {
    _ = linux.futex_4arg(value, .{ .cmd = .WAIT, .private = true }, expected, null);
}

fn wake(_: ?*anyopaque, value: *const u32, max_waiters: u32) void {
    const count: u32 = @min(max_waiters, std.math.maxInt(i32));
    _ = linux.futex_3arg(value, .{ .cmd = .WAKE, .private = true }, count);
}

const testing = std.testing;
const Sequence = @import("../core/sequence.zig").Sequence;

test "handles of closed stores and of none are known by nobody" {
    try testing.expectError(error.UnknownStore, acquire(0));
    try testing.expectError(error.UnknownStore, acquire(std.math.maxInt(u64)));
    const first = try open(4096);
    try testing.expectError(error.UnknownStore, close(first + (1 << 32)));
    try close(first);
    try testing.expectError(error.UnknownStore, close(first));
    const second = try open(4096);
    defer close(second) catch unreachable;
    try testing.expect(first != second);
    try testing.expectError(error.UnknownStore, acquire(first));
}

test "a store that is used outlives its closing" {
    const handle = try open(1 << 16);
    const used = try acquire(handle);
    const also_used = try acquire(handle);
    try close(handle);
    try testing.expectError(error.UnknownStore, acquire(handle));
    release(also_used);
    const text: Sequence = .{ .hashes = &.{7}, .positions = &.{0}, .length = 1 };
    used.store.insert(1, .nothing, text);
    try testing.expect(used.store.find(1));
    const place: *const Place = @alignCast(@fieldParentPtr("open_store", used));
    try testing.expectEqual(.closing, place.load().phase);
    release(used);
    try testing.expectEqual(.free, place.load().phase);
}

test "as many stores as there are places" {
    var handles: [max_stores]u64 = undefined;
    for (&handles) |*handle| handle.* = try open(0);
    try testing.expectError(error.TooManyStores, open(0));
    try close(handles[5]);
    handles[5] = try open(0);
    for (handles) |handle| try close(handle);
}
