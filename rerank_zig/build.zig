//! Builds the shared library `libsluice_rerank.so` and runs the core's unit tests.
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
}
