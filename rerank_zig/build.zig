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

/// `fuzz`: the library with counters of what was run, and a harness without. Installed under bin.
fn addFuzzing(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) void {
    const counted = b.addObject(.{
        .name = "counted",
        .use_llvm = true,
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/abi.zig"),
            .target = target,
            .optimize = optimize,
            .fuzz = true,
        }),
    });
    const header = b.addTranslateC(.{
        .root_source_file = b.path("include/sluice_rerank.h"),
        .target = target,
        .optimize = optimize,
        .link_libc = false,
    });
    const fuzz = b.addExecutable(.{
        .name = "fuzz",
        .root_module = b.createModule(.{
            .root_source_file = b.path("fuzz/fuzz.zig"),
            .target = target,
            .optimize = optimize,
            .imports = &.{.{ .name = "header", .module = header.createModule() }},
        }),
    });
    fuzz.root_module.addObject(counted);
    const fuzz_step = b.step("fuzz", "Build bin/fuzz, which fuzzes the C ABI");
    fuzz_step.dependOn(&b.addInstallArtifact(fuzz, .{}).step);
}
