// swap add, reclaim, quota, evict.
#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using ReclaimCommands = CommandTest;

TEST_F(ReclaimCommands, PagesGoToTheSwapFileAndAreRead) {
    create_space();
    const std::string swap = path() + ".swap";
    well({"map", path(), "editor", "0x40000000", "64KiB"});
    well({"write", path(), "editor", "0x40003000"}, "kept");
    EXPECT_EQ(json({"evict", path(), "editor", "64KiB"}).at("evicted_bytes"), 15 * 4096);  // zeros
    well({"swap", "add", path(), swap, "--size", "1MiB"});
    EXPECT_EQ(json({"evict", path(), "editor", "64KiB"}).at("evicted_bytes"), 4096);
    EXPECT_EQ(json({"translate", path(), "editor", "0x40003000"})[0].at("fault"), "swapped");
    EXPECT_EQ(well({"read", path(), "editor", "0x40003000", "4"}), "kept");
    EXPECT_EQ(json({"quota", path(), "editor"}),
              nlohmann::json::parse(
                  R"({"quota_bytes": null, "resident_bytes": 0, "swapped_bytes": 4096})"));
    EXPECT_EQ(json({"verify", path()}).at("clean"), true);
    std::remove(swap.c_str());
}

TEST_F(ReclaimCommands, PoliciesAndQuotasAreKept) {
    create_space();
    EXPECT_EQ(well({"reclaim", path()}), "policy global, when nothing can go: refuse\n");
    well({"reclaim", path(), "--policy", "local", "--oom", "release"});
    EXPECT_EQ(json({"reclaim", path()}),
              nlohmann::json::parse(R"({"policy": "local", "oom": "release"})"));
    well({"quota", path(), "editor", "64KiB"});
    EXPECT_EQ(json({"quota", path(), "editor"}).at("quota_bytes"), 65536);
    const Command refused = run({"map", path(), "editor", "0x40000000", "128KiB"});
    EXPECT_NE(refused.status, 0);
    EXPECT_NE(refused.errors.find("may have 16 pages"), std::string::npos) << refused.errors;
    well({"quota", path(), "editor", "none"});
    well({"map", path(), "editor", "0x40000000", "128KiB"});
    const Command no_size = run({"quota", path(), "editor", "much"});
    EXPECT_NE(no_size.errors.find("is no quota"), std::string::npos) << no_size.errors;
}

}  // namespace
}  // namespace holdfast::test
