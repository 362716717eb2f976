// map, unmap, protect, maps, translate.
#include <filesystem>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using MappingCommands = CommandTest;

TEST_F(MappingCommands, MapsHaveTheFormOfProc) {
    create_space();
    well({"map", path(), "editor", "0x555555554000", "8KiB", "--prot", "rx", "--name",
          "/usr/bin/editor"});
    well({"map", path(), "editor", "0x7ffff0000000", "1MiB", "--prot", "rwu", "--lazy"});
    EXPECT_EQ(well({"maps", path(), "editor"}),
              "555555554000-555555556000 r-xp 00000000 00:00 0                          "
              "/usr/bin/editor\n"
              "7ffff0000000-7ffff0100000 rw-p 00000000 00:00 0 \n");
    EXPECT_EQ(json({"maps", path(), "editor"}), nlohmann::json::parse(R"([
        {"start": "0x555555554000", "end": "0x555555556000", "prot": "r-x-", "offset": 0,
         "resident_bytes": 8192, "huge_bytes": 0, "name": "/usr/bin/editor"},
        {"start": "0x7ffff0000000", "end": "0x7ffff0100000", "prot": "rw-u", "offset": 0,
         "resident_bytes": 0, "huge_bytes": 0, "name": ""}])"));
}

TEST_F(MappingCommands, AStackGrowsToWhatIsWritten) {
    create_space();
    well({"map", path(), "editor", "0x7fff00000000", "1MiB", "--grows-down", "--stack-guard",
          "8KiB", "--stack-size", "16KiB", "--name", "[stack]"});
    fails({"map", path(), "editor", "0x10000", "64KiB", "--grows-down"}, 2, "invalid_argument",
          "guard");
    EXPECT_EQ(json({"translate", path(), "editor", "0x7fff00080000"})[0].at("fault"), "stack_room");
    well({"write", path(), "editor", "0x7fff000e0000"}, "bytes");
    EXPECT_EQ(well({"maps", path(), "editor"}),
              "7fff00000000-7fff00002000 ---p 00000000 00:00 0                          [stack]\n"
              "7fff00002000-7fff000e0000 ---p 00002000 00:00 0                          [stack]\n"
              "7fff000e0000-7fff00100000 rw-p 000e0000 00:00 0                          [stack]\n");
    const auto maps = json({"maps", path(), "editor"});
    EXPECT_TRUE(maps[0].at("guard"));
    EXPECT_TRUE(maps[1].at("stack_room"));
    EXPECT_EQ(maps[1].at("prot"), "rw--");
    EXPECT_EQ(maps[2].at("resident_bytes"), 4096);
    EXPECT_FALSE(maps[2].contains("stack_room"));
}

TEST_F(MappingCommands, ADeviceIsMappedByItsPlace) {
    create_space();
    const std::string file = path() + ".device";
    well({"region", "add", path(), file, "--size", "1MiB", "--device"});
    well({"map", path(), "editor", "0x40000000", "64KiB", "--device", "1", "--offset", "4KiB"});
    well({"map", path(), "editor", "0x50000000", "4KiB", "--device", "1", "--offset", "8KiB"});
    well({"write", path(), "editor", "0x50000000"}, "bytes");
    EXPECT_EQ(well({"read", path(), "editor", "0x40001000", "5"}), "bytes");
    fails({"map", path(), "editor", "0x60000000", "64KiB", "--device", "0"}, 2, "invalid_argument",
          "pool");
    fails({"map", path(), "editor", "0x60000000", "64KiB", "--offset", "4KiB"}, 2,
          "invalid_argument", "--offset");
    const auto maps = json({"maps", path(), "editor"});
    EXPECT_TRUE(maps[0].at("device"));
    EXPECT_EQ(maps[0].at("resident_bytes"), 0);
    EXPECT_EQ(json({"region", "list", path()})[1].at("kind"), "device");
    std::filesystem::remove(file);
}

TEST_F(MappingCommands, UnmapAndProtect) {
    create_space();
    well({"map", path(), "editor", "0x10000", "0x4000"});
    well({"unmap", path(), "editor", "0x11000", "4096"});
    well({"protect", path(), "editor", "0x12000", "8KiB", "--prot", "r"});
    EXPECT_EQ(well({"maps", path(), "editor"}),
              "00010000-00011000 rw-p 00000000 00:00 0 \n"
              "00012000-00014000 r--p 00000000 00:00 0 \n");
    // Holes are permitted for unmap, as in munmap(2).
    well({"unmap", path(), "editor", "0x0", "1GiB"});
    EXPECT_EQ(well({"maps", path(), "editor"}), "");
    EXPECT_EQ(json({"maps", path(), "editor"}), nlohmann::json::array());
}

TEST_F(MappingCommands, HugePages) {
    create_space();
    well({"map", path(), "editor", "0x40000000", "4MiB", "--page-size", "2MiB"});
    EXPECT_EQ(json({"translate", path(), "editor", "0x40201234"})[0].at("page_size"), 2 << 20);
    EXPECT_EQ(json({"maps", path(), "editor"})[0].at("huge_bytes"), 4 << 20);
    well({"unmap", path(), "editor", "0x40000000", "4KiB"});
    EXPECT_EQ(json({"maps", path(), "editor"})[0].at("huge_bytes"), 2 << 20);
    well({"map", path(), "editor", "0x80000000", "2MiB"});
    EXPECT_EQ(json({"promote", path(), "editor", "0x80000000", "2MiB"}).at("huge_bytes"), 2 << 20);
    const auto frames = json({"info", path()}).at("frames");
    EXPECT_GT(frames.at("free_2MiB"), 0);
    EXPECT_LT(frames.at("fragmentation"), 1);
    const Command refused = run({"map", path(), "editor", "0x1000", "2MiB", "--page-size", "2MiB"});
    EXPECT_NE(refused.errors.find("multiples of 0x200000"), std::string::npos) << refused.errors;
}

TEST_F(MappingCommands, Translate) {
    create_space();
    well({"map", path(), "editor", "0x7000", "4KiB", "--prot", "rwu", "--page-size", "4KiB"});
    well({"map", path(), "editor", "0x9000", "4KiB", "--lazy"});
    // Faults are results: the status is that of success.
    const auto answers =
        json({"translate", path(), "editor", "0x7123", "0x8000", "0x9000", "0x800000000000"});
    ASSERT_EQ(answers.size(), 4u);
    EXPECT_EQ(answers[0].at("virtual"), "0x7123");
    const auto physical = answers[0].at("physical").get<std::string>();
    EXPECT_EQ(physical.find("0x"), 0u);
    EXPECT_EQ(physical.substr(physical.size() - 3), "123");
    EXPECT_EQ(answers[0].at("page_size"), 4096);
    EXPECT_EQ(answers[0].at("prot"), "rw-u");
    EXPECT_FALSE(answers[0].contains("fault"));
    EXPECT_EQ(answers[1].at("virtual"), "0x8000");
    EXPECT_EQ(answers[1].at("fault"), "not_mapped");
    EXPECT_FALSE(answers[1].contains("physical"));
    EXPECT_EQ(answers[2].at("fault"), "demand_zero");
    EXPECT_EQ(answers[3].at("fault"), "non_canonical");

    const std::string text = well({"translate", path(), "editor", "0x7123", "0x8000"});
    EXPECT_EQ(text, "0x7123 -> " + physical +
                        "  rw-u  4 KiB page\n"
                        "0x8000 -> fault: not_mapped at 0x8000, level 1\n");
}

TEST_F(MappingCommands, RangesThatCannotBe) {
    create_space();
    well({"map", path(), "editor", "0x10000", "64KiB"});
    const std::string maps = well({"maps", path(), "editor"});
    fails({"map", path(), "editor", "0x1f000", "64KiB"}, 3, "overlap", "0x1f000");
    fails({"map", path(), "editor", "0x30001", "4KiB"}, 2, "invalid_argument", "4096");
    fails({"map", path(), "editor", "0x30000", "100"}, 2, "invalid_argument", "4096");
    fails({"map", path(), "editor", "0x30000", "0"}, 2, "invalid_argument", "empty");
    fails({"map", path(), "editor", "0x800000000000", "4KiB"}, 2, "invalid_argument", "canonical");
    fails({"map", path(), "editor", "0xfffffffffffff000", "8KiB"}, 2, "invalid_argument", "wraps");
    fails({"map", path(), "editor", "0x30000", "4KiB", "--prot", "w"}, 2, "invalid_argument", "r");
    fails({"map", path(), "editor", "0x40000000", "1GiB"}, 3, "no_space", path());
    fails({"map", path(), "nobody", "0x30000", "4KiB"}, 3, "not_found", "nobody");
    fails({"unmap", path(), "editor", "0x10001", "4KiB"}, 2, "invalid_argument", "4096");
    fails({"protect", path(), "editor", "0x1f000", "8KiB", "--prot", "r"}, 3, "not_mapped",
          "0x20000");
    EXPECT_EQ(well({"maps", path(), "editor"}), maps);
    EXPECT_TRUE(json({"verify", path()}).at("clean"));
}

}  // namespace
}  // namespace holdfast::test
