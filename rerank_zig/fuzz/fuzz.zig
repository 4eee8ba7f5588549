//! Fuzzes the C ABI of the library, which is built in: changes kept inputs at random, by a seed,
//! and where the library counts what is run, keeps those that reach something new. It ends after a
//! number of executions, or at the first input that breaks a promise of the header, crashes or
//! hangs; that input lies in a file then, and it says how to run it again. It must never end well
//! otherwise.

const builtin = @import("builtin");
const std = @import("std");
const linux = std.os.linux;
const Coverage = @import("coverage.zig").Coverage;
const Input = @import("input.zig").Input;
const Rooms = @import("rooms.zig").Rooms;
const mutation = @import("mutation.zig");
const program = @import("program.zig");

const usage =
    \\fuzz [--executions N] [--seed N] [--corpus FOLDER] [--keep FOLDER]
    \\    runs N changes of the folder's inputs; with --keep, adds those that reach something new.
    \\    An input that breaks something is written to the working folder.
    \\fuzz --reproduce FILE
    \\    runs one input again, many times: secrets of stores differ from run to run
    \\
;
/// Between one look at the watch and the next; an execution that takes two of them hangs.
const watch_seconds = 10;
const repetitions = 100;
const max_kept = 1 << 15;
/// How often the process's memory is looked at, and how much it may grow after the first time.
const executions_a_look = 1 << 14;
const max_growth_pages = (64 << 20) / 4096;
const max_name_bytes = 64;

const Settings = struct {
    executions: u64 = 100_000,
    seed: u64 = 1,
    corpus: ?[]const u8 = null,
    keep: ?[]const u8 = null,
    reproduce: ?[]const u8 = null,

    fn parse(arguments: []const [:0]const u8) !Settings {
        var settings: Settings = .{};
        if (arguments.len % 2 == 1) return error.Usage;
        var index: usize = 0;
        while (index < arguments.len) : (index += 2) {
            const value = arguments[index + 1];
            const name = arguments[index];
            if (std.mem.eql(u8, name, "--executions")) {
                settings.executions = std.fmt.parseInt(u64, value, 10) catch return error.Usage;
            } else if (std.mem.eql(u8, name, "--seed")) {
                settings.seed = std.fmt.parseInt(u64, value, 10) catch return error.Usage;
            } else if (std.mem.eql(u8, name, "--corpus")) {
                settings.corpus = value;
            } else if (std.mem.eql(u8, name, "--keep")) {
                settings.keep = value;
            } else if (std.mem.eql(u8, name, "--reproduce")) {
                settings.reproduce = value;
            } else return error.Usage;
        }
        return settings;
    }
};

/// What runs now, for whoever looks at it from a signal.
var current: struct {
    bytes: []const u8 = &.{},
    number: u64 = 0,
    watched: u64 = 0,
    seed: u64 = 0,
    is_reproduced: bool = false,
    program_path: []const u8 = "fuzz",
} = .{};

pub const panic = std.debug.FullPanic(onPanic);

/// Takes no memory from malloc: what is left there at the end is the library's.
pub fn main(init: std.process.Init.Minimal) !void {
    var arena_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const io = std.Io.Threaded.global_single_threaded.io();
    const arguments = try init.args.toSlice(arena);
    current.program_path = arguments[0];
    const settings = Settings.parse(arguments[1..]) catch {
        _ = linux.write(2, usage, usage.len);
        linux.exit(2);
    };
    current.seed = settings.seed;
    try watch();
    var rooms = try Rooms.init();
    var tally: program.Tally = .{};
    if (settings.reproduce) |path| {
        current.is_reproduced = true;
        current.bytes = try std.Io.Dir.cwd().readFileAlloc(io, path, arena, .limited(1 << 20));
        for (0..repetitions) |_| execute(current.bytes, &rooms, &tally);
        return print(io, arena, .{ .executions = repetitions });
    }

    var fuzzer: Fuzzer = .{
        .allocator = arena,
        .coverage = try .init(arena),
        .random = .init(settings.seed),
        .rooms = &rooms,
        .tally = &tally,
    };
    if (settings.corpus) |path| try fuzzer.load(io, path);
    const start = std.Io.Clock.awake.now(io);
    try fuzzer.fuzz(settings.executions);
    if (settings.keep) |path| try fuzzer.keep(io, path);
    try print(io, arena, .{
        .executions = fuzzer.executions,
        .seconds = start.durationTo(std.Io.Clock.awake.now(io)).toSeconds(),
        .calls = tally.calls,
        .edges = fuzzer.coverage.edgeCount(),
        .all_edges = fuzzer.coverage.seen.len,
        .inputs = fuzzer.inputs.items.len,
        .statuses = tally.statuses,
    });
}

fn print(io: std.Io, arena: std.mem.Allocator, value: anytype) !void {
    const line = try std.json.Stringify.valueAlloc(arena, value, .{});
    try std.Io.File.stdout().writeStreamingAll(io, try std.mem.concat(arena, u8, &.{ line, "\n" }));
}

fn execute(bytes: []const u8, rooms: *Rooms, tally: *program.Tally) void {
    current.bytes = bytes;
    current.number += 1;
    program.run(bytes, rooms, tally);
}

const Fuzzer = struct {
    allocator: std.mem.Allocator,
    coverage: Coverage,
    random: std.Random.Xoshiro256,
    rooms: *Rooms,
    tally: *program.Tally,
    inputs: std.ArrayList([]const u8) = .empty,
    executions: u64 = 0,

    fn load(fuzzer: *Fuzzer, io: std.Io, path: []const u8) !void {
        var folder = try std.Io.Dir.cwd().openDir(io, path, .{ .iterate = true });
        defer folder.close(io);
        var entries = folder.iterate();
        while (try entries.next(io)) |entry| {
            if (entry.kind != .file) continue;
            const limit: std.Io.Limit = .limited(1 << 20);
            const bytes = try folder.readFileAlloc(io, entry.name, fuzzer.allocator, limit);
            try fuzzer.inputs.append(fuzzer.allocator, bytes);
        }
        // The order in which a folder is listed is nobody's promise.
        std.mem.sortUnstable([]const u8, fuzzer.inputs.items, {}, isBefore);
        for (fuzzer.inputs.items) |bytes| _ = fuzzer.reachesNew(bytes, .counts);
    }

    fn isBefore(_: void, left: []const u8, right: []const u8) bool {
        if (left.len != right.len) return left.len < right.len;
        return std.mem.order(u8, left, right) == .lt;
    }

    fn reachesNew(fuzzer: *Fuzzer, bytes: []const u8, novelty: Coverage.Novelty) bool {
        Coverage.restart();
        execute(bytes, fuzzer.rooms, fuzzer.tally);
        fuzzer.executions += 1;
        return fuzzer.coverage.isNew(novelty);
    }

    fn fuzz(fuzzer: *Fuzzer, executions: u64) !void {
        const random = fuzzer.random.random();
        if (fuzzer.inputs.items.len == 0) try fuzzer.inputs.append(fuzzer.allocator, "fuzz");
        var max_pages: ?u64 = null;
        var room: [mutation.max_input_bytes]u8 = undefined;
        while (fuzzer.executions < executions) {
            const parent = fuzzer.pick(random);
            const input = mutation.mutate(random, parent, fuzzer.pick(random), &room);
            if (random.int(u8) > 0) Input.shrink(input);
            if (fuzzer.reachesNew(input, .counts) and fuzzer.inputs.items.len < max_kept) {
                const kept = try fuzzer.allocator.dupe(u8, input);
                try fuzzer.inputs.append(fuzzer.allocator, kept);
            }
            if (fuzzer.executions % executions_a_look > 0) continue;
            const pages = pageCount();
            if (pages > max_pages orelse pages) @panic("memory is not given back");
            if (max_pages == null) max_pages = pages + max_growth_pages;
        }
    }

    /// Of two inputs the shorter one: short ones run fast, and a change of them changes more.
    fn pick(fuzzer: *Fuzzer, random: std.Random) []const u8 {
        const inputs = fuzzer.inputs.items;
        const one = inputs[random.uintLessThan(usize, inputs.len)];
        const other = inputs[random.uintLessThan(usize, inputs.len)];
        return if (other.len < one.len) other else one;
    }

    /// Writes inputs that together go through all edges that were found, the short ones first.
    fn keep(fuzzer: *Fuzzer, io: std.Io, path: []const u8) !void {
        var folder = try std.Io.Dir.cwd().createDirPathOpen(io, path, .{});
        defer folder.close(io);
        std.mem.sortUnstable([]const u8, fuzzer.inputs.items, {}, isBefore);
        fuzzer.coverage.clear();
        for (fuzzer.inputs.items) |bytes| {
            if (!fuzzer.reachesNew(bytes, .edges)) continue;
            var name: [16]u8 = undefined;
            const hash = std.hash.Wyhash.hash(0, bytes);
            _ = std.fmt.bufPrint(&name, "{x:0>16}", .{hash}) catch unreachable;
            try folder.writeFile(io, .{ .sub_path = &name, .data = bytes });
        }
    }
};

/// Of the process's address space.
fn pageCount() u64 {
    var text: [max_name_bytes]u8 = undefined;
    const file = linux.open("/proc/self/statm", .{}, 0);
    if (linux.errno(file) != .SUCCESS) return 0;
    defer _ = linux.close(@intCast(file));
    const len = linux.read(@intCast(file), &text, text.len);
    if (linux.errno(len) != .SUCCESS) return 0;
    var fields = std.mem.tokenizeScalar(u8, text[0..len], ' ');
    return std.fmt.parseInt(u64, fields.next() orelse "0", 10) catch 0;
}

var signal_stack: [1 << 16]u8 align(16) = undefined;

/// Listens to what ends a process, and looks at the watch.
fn watch() !void {
    // A stack cannot grow while memory is short.
    var stack: [1 << 20]u8 = undefined;
    std.mem.doNotOptimizeAway(&stack);
    @memset(&stack, 0);
    std.mem.doNotOptimizeAway(&stack);
    const own_stack: std.posix.stack_t = .{
        .sp = &signal_stack,
        .flags = 0,
        .size = signal_stack.len,
    };
    try std.posix.sigaltstack(&own_stack, null);
    const action: std.posix.Sigaction = .{
        .handler = .{ .handler = onSignal },
        .mask = std.posix.sigemptyset(),
        .flags = std.posix.SA.ONSTACK,
    };
    for ([_]std.posix.SIG{ .SEGV, .ILL, .BUS, .FPE, .TRAP, .ABRT, .SYS, .ALRM }) |signal| {
        std.posix.sigaction(signal, &action, null);
    }
    const period: linux.timespec = .{ .sec = watch_seconds, .nsec = 0 };
    const timer: linux.itimerspec = .{ .it_interval = period, .it_value = period };
    _ = linux.setitimer(@intFromEnum(linux.ITIMER.REAL), &timer, null);
}

fn onSignal(signal: std.posix.SIG) callconv(.c) void {
    if (signal != .ALRM) end("crash", @tagName(signal));
    if (current.watched == current.number) end("hang", "no end in sight");
    current.watched = current.number;
}

fn onPanic(message: []const u8, address: ?usize) noreturn {
    if (current.is_reproduced) std.debug.defaultPanic(message, address);
    end("broken", message);
}

/// Writes the input to a file, without any memory of its own, and ends the process.
fn end(kind: []const u8, message: []const u8) noreturn {
    var room: [max_name_bytes]u8 = undefined;
    const name = std.fmt.bufPrintSentinel(
        &room,
        "{s}-{d}-{d}",
        .{ kind, current.seed, current.number },
        0,
    ) catch unreachable;
    if (!current.is_reproduced) {
        const file = linux.open(name, .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true }, 0o644);
        if (linux.errno(file) == .SUCCESS) {
            _ = linux.write(@intCast(file), current.bytes.ptr, current.bytes.len);
        }
    }
    const again = [_][]const u8{ "\nrun it again: ", current.program_path, " --reproduce ", name };
    for ([_][]const u8{ "fuzz: ", kind, ": ", message }) |part| {
        _ = linux.write(2, part.ptr, part.len);
    }
    if (!current.is_reproduced) for (again) |part| {
        _ = linux.write(2, part.ptr, part.len);
    };
    _ = linux.write(2, "\n", 1);
    linux.exit_group(1);
}
