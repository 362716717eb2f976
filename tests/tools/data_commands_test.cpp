// read, write.
#include <algorithm>
#include <random>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using DataCommands = CommandTest;

std::string random_bytes(std::size_t size) {
    std::mt19937_64 random(size);
    std::string bytes(size, '\0');
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random()); });
    return bytes;
}

TEST_F(DataCommands, WhatIsWrittenIsReadInAnotherProcess) {
    create_space();
    well({"map", path(), "editor", "0x100000", "8MiB"});
    // Neither aligned, nor one piece.
    const std::string bytes = random_bytes(3'456'789);
    EXPECT_EQ(well({"write", path(), "editor", "0x100123"}, bytes), "");
    EXPECT_EQ(well({"read", path(), "editor", "0x100123", "3456789"}), bytes);
    EXPECT_EQ(well({"read", path(), "editor", "0x100000", "0x123"}), std::string(0x123, '\0'));
    EXPECT_EQ(well({"read", path(), "editor", "0x100000", "0"}), "");
    EXPECT_EQ(json({"write", path(), "editor", "0x100000"}, "abc").at("written_bytes"), 3);
    EXPECT_EQ(json({"write", path(), "editor", "0x100000"}, "").at("written_bytes"), 0);
}

TEST_F(DataCommands, WithoutEmulationMsyncMakesItDurable) {
    create_space();
    well({"map", path(), "editor", "0x1000", "64KiB"});
    const std::string bytes = random_bytes(60'000);
    EXPECT_EQ(run({"write", path(), "editor", "0x1234"}, bytes).status, 0);
    EXPECT_EQ(run({"read", path(), "editor", "0x1234", "60000"}).output, bytes);
}

TEST_F(DataCommands, LazyPagesReadAsZerosAndGetFramesByWriting) {
    create_space();
    well({"map", path(), "editor", "0x1000", "1GiB", "--lazy"});
    EXPECT_EQ(well({"read", path(), "editor", "0x3000", "2MiB"}), std::string(2 << 20, '\0'));
    EXPECT_EQ(json({"info", path()}).at("spaces").at(0).at("resident_bytes"), 0);
    well({"write", path(), "editor", "0x3ffe"}, "four");
    EXPECT_EQ(well({"read", path(), "editor", "0x3ffd", "6"}), std::string("\0four\0", 6));
    EXPECT_EQ(json({"info", path()}).at("spaces").at(0).at("resident_bytes"), 8192);
}

TEST_F(DataCommands, AReadStopsAtTheFirstPageThatIsNotThere) {
    create_space();
    well({"map", path(), "editor", "0x1000", "8KiB"});
    well({"write", path(), "editor", "0x1000"}, std::string(8192, 'a'));
    const Command command =
        run({"--json", "--emulate-pmem", "read", path(), "editor", "0x1000", "1MiB"});
    EXPECT_EQ(command.status, 3);
    EXPECT_EQ(command.output, std::string(8192, 'a'));
    EXPECT_NE(command.errors.find("0x3000"), std::string::npos) << command.errors;
}

TEST_F(DataCommands, PlacesThatCannotBeRefuse) {
    create_space();
    well({"map", path(), "editor", "0x1000", "4KiB", "--prot", "r"});
    fails({"write", path(), "editor", "0x1000"}, 3, "permission_denied", "0x1000", "text");
    fails({"write", path(), "editor", "0x2000"}, 3, "not_mapped", "0x2000", "text");
    fails({"write", path(), "editor", "0xffffffffffffffff"}, 2, "invalid_argument", "address space",
          "text");
    fails({"read", path(), "editor", "0xffffffffffffffff", "2"}, 2, "invalid_argument",
          "address space");
    EXPECT_EQ(well({"read", path(), "editor", "0x1000", "4"}), std::string(4, '\0'));
}

TEST_F(DataCommands, APipeThatClosesEndsAReadQuietly) {
    create_space();
    well({"map", path(), "editor", "0x1000", "1GiB", "--lazy"});
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const TemporaryFile errors = file_with("");
    const pid_t child = start_command({"read", path(), "editor", "0x1000", "1GiB"}, STDIN_FILENO,
                                      ends[1], fileno(errors.get()));
    close(ends[1]);
    char byte = 'x';
    EXPECT_EQ(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    EXPECT_EQ(wait_for(child), 3);
    EXPECT_EQ(content_of(errors), "");
    EXPECT_EQ(well({"maps", path(), "editor"}).size(), 41u);
}

}  // namespace
}  // namespace holdfast::test
