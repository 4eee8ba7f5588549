//! Builds the shared library `libsluice_rerank.so`, runs the core's unit tests, and builds the
//! programs under fuzz/ that look for what could break a process that loads the library.
//! The processor defaults to the architecture's baseline, so that one build runs on every machine
//! of a cluster; `-Dcpu=native` builds for this machine alone.

const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.option(
        std.builtin.OptimizeMode,
        "optimize",
        "Debug, ReleaseSafe (default), ReleaseFast or ReleaseSmall",
    ) orelse .ReleaseSafe;

    const library = b.addLibrary(.{
        .name = "sluice_rerank",
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/abi.zig"),
            .target = target,
            .optimize = optimize,
            .strip = optimize != .Debug,
        }),
    });
    b.installArtifact(library);

    const test_module = b.createModule(.{
        .root_source_file = b.path("src/abi.zig"),
        .target = target,
        .optimize = optimize,
    });
    // The header's own layout, so that a test can hold it against the structs in Zig.
    test_module.addIncludePath(b.path("include"));
    test_module.addCSourceFile(.{ .file = b.path("src/header_layout.c"), .flags = &.{"-Werror"} });
    const tests = b.addTest(.{ .root_module = test_module });
    const test_step = b.step("test", "Run the unit tests");
    test_step.dependOn(&b.addRunArtifact(tests).step);

    addFuzzing(b, target, optimize);
}

/// Builds the programs under fuzz/, each with a library of its own:
///   fuzz          the library as it is, for many executions
///   fuzz-guided   one that counts what is run, to find new inputs
///   fuzz-checked  a shared one that takes its memory from malloc, which valgrind watches
///   threads       one with ThreadSanitizer
fn addFuzzing(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) void {
    const step = b.step("fuzz", "Build the programs that try to break the C ABI");
    const header = b.addTranslateC(.{
        .root_source_file = b.path("include/sluice_rerank.h"),
        .target = target,
        .optimize = optimize,
        .link_libc = false,
    }).createModule();
    const Program = struct { name: []const u8, source: []const u8 = "fuzz/fuzz.zig" };
    for ([_]Program{
        .{ .name = "fuzz" },
        .{ .name = "fuzz-guided" },
        .{ .name = "fuzz-checked" },
        .{ .name = "threads", .source = "fuzz/threads.zig" },
    }, 0..) |program, index| {
        const is_checked = index == 2;
        const is_sanitized = index == 3;
        const root = b.createModule(.{
            .root_source_file = b.path(program.source),
            .target = target,
            .optimize = optimize,
            .link_libc = is_checked or is_sanitized,
            .sanitize_thread = is_sanitized,
            .imports = &.{.{ .name = "header", .module = header }},
        });
        const library = b.createModule(.{
            .root_source_file = b.path("src/abi.zig"),
            .target = target,
            .optimize = optimize,
            .link_libc = is_checked or is_sanitized,
            .sanitize_thread = is_sanitized,
            .fuzz = index == 1,
        });
        if (is_checked) {
            const shared = b.addLibrary(.{
                .name = "sluice_rerank_checked",
                .linkage = .dynamic,
                .root_module = library,
            });
            root.linkLibrary(shared);
            root.addRPathSpecial("$ORIGIN/../lib");
            step.dependOn(&b.addInstallArtifact(shared, .{}).step);
        } else {
            // An object of its own keeps its own panic, and alone is instrumented.
            const object_name = b.fmt("{s}-library", .{program.name});
            root.addObject(b.addObject(.{
                .name = object_name,
                .root_module = library,
                .use_llvm = true,
            }));
        }
        const executable = b.addExecutable(.{
            .name = program.name,
            .root_module = root,
            .use_llvm = true,
        });
        step.dependOn(&b.addInstallArtifact(executable, .{}).step);
    }
}
