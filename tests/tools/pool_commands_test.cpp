// create, info, release, and the pools that they refuse.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using PoolCommands = CommandTest;

TEST_F(PoolCommands, CreateAndInfo) {
    create_space();
    well({"map", path(), "editor", "0x7000", "16KiB"});
    EXPECT_EQ(std::filesystem::file_size(path()), std::uint64_t{64} << 20);

    const nlohmann::json info = json({"info", path()});
    EXPECT_EQ(info.at("uuid").get<std::string>().size(), 36u);
    EXPECT_GE(info.at("format_version"), 1);
    EXPECT_GE(info.at("boot_epoch"), 1);
    const auto& frames = info.at("frames");
    // Data, tables of four levels, and the record of the space.
    EXPECT_EQ(frames.at("total").get<int>() - frames.at("free").get<int>() -
                  frames.at("limbo").get<int>(),
              4 + 4 + 1);
    EXPECT_EQ(info.at("tables"), 4);
    const auto& region = info.at("regions").at(0);
    EXPECT_EQ(region.at("kind"), "pool");
    EXPECT_EQ(region.at("file"), path());
    EXPECT_EQ(region.at("length").get<std::uint64_t>() / 4096, frames.at("total"));
    EXPECT_EQ(region.at("uuid").get<std::string>().size(), 36u);
    EXPECT_EQ(region.at("physical_base").get<std::string>().find("0x"), 0u);
    EXPECT_GT(region.at("file_offset").get<std::uint64_t>(), 0u);
    const auto& space = info.at("spaces").at(0);
    EXPECT_EQ(space.at("name"), "editor");
    EXPECT_EQ(space.at("levels"), 4);
    EXPECT_EQ(space.at("root").get<std::string>().find("0x"), 0u);
    EXPECT_EQ(space.at("mapped_bytes"), 16384);

    const std::string text = well({"info", path()});
    EXPECT_NE(text.find(info.at("uuid").get<std::string>()), std::string::npos);
    EXPECT_NE(text.find("editor"), std::string::npos);
}

TEST_F(PoolCommands, OptionsOfAllCommandsMayStandAnywhere) {
    create_pool();
    for (const auto& line : std::vector<std::vector<std::string>>{
             {"--emulate-pmem", "--json", "space", "list", path()},
             {"--json", "space", "--emulate-pmem", "list", path()},
             {"space", "list", "--json", path(), "--emulate-pmem"}}) {
        const Command command = run(line);
        EXPECT_EQ(command.status, 0) << command.errors;
        EXPECT_EQ(command.json(), nlohmann::json::array());
    }
}

TEST_F(PoolCommands, CommandsThatOnlyDoSomethingAnswerAnEmptyObject) {
    EXPECT_EQ(json({"create", path(), "--size", "16MiB"}), nlohmann::json::object());
}

TEST_F(PoolCommands, Release) {
    create_space();
    well({"map", path(), "editor", "0x0", "8MiB"});
    const auto before = json({"info", path()}).at("frames");
    well({"space", "remove", path(), "editor"});
    json({"release", path()}).at("released_tables").get<std::uint64_t>();
    const auto after = json({"info", path()}).at("frames");
    EXPECT_EQ(after.at("limbo"), 0);
    EXPECT_EQ(after.at("free"), after.at("total"));
    EXPECT_GE(after.at("free").get<int>(), before.at("free").get<int>() + 2048);
    EXPECT_NE(well({"release", path()}).find("released 0"), std::string::npos);
}

TEST_F(PoolCommands, CreateRefuses) {
    create_pool();
    fails({"create", path(), "--size", "64MiB"}, 3, "already_exists", path());
    fails({"create", path() + "-small", "--size", "1MiB"}, 2, "invalid_argument", "8 MiB");
    fails({"create", path() + "-none"}, 2, "invalid_argument", path() + "-none");
    fails({"create", path() + "-vast", "--size", "1000TiB"}, 3, "no_space", "left");
    fails({"create", "/no/such/folder/pool", "--size", "64MiB"}, 3, "not_found", "/no/such/folder");
    for (const char* suffix : {"-small", "-none", "-vast"})
        EXPECT_FALSE(std::filesystem::exists(path() + suffix));
}

TEST_F(PoolCommands, WhatIsNoPoolIsRefused) {
    fails({"info", path()}, 3, "not_found", path());
    std::ofstream(path()) << std::string(16 << 20, 'x');
    fails({"info", path()}, 3, "not_a_pool", path());
    fails({"verify", path()}, 3, "not_a_pool", path());
    fails({"space", "list", path()}, 3, "not_a_pool", path());
    std::ifstream file(path());
    EXPECT_EQ(file.get(), 'x');
}

TEST_F(PoolCommands, APoolThatIsOpenElsewhereIsRefused) {
    const Store store = pool().create();
    fails({"info", path()}, 3, "busy", path());
}

TEST_F(PoolCommands, AReadOnlyPoolIsRefused) {
    create_pool();
    chmod(path().c_str(), 0400);
    fails({"info", path()}, 3, "permission_denied", path());
}

TEST_F(PoolCommands, Overcommit) {
    create_space();
    EXPECT_EQ(json({"overcommit", path()}).at("policy"), "always");
    well({"map", path(), "editor", "0x100000000", "1GiB", "--lazy"});
    EXPECT_EQ(json({"info", path()}).at("overcommit").at("committed_bytes"), 1u << 30);
    const auto set = json({"overcommit", path(), "--policy", "never", "--ratio", "20"});
    EXPECT_EQ(set.at("policy"), "never");
    EXPECT_EQ(set.at("ratio_percent"), 20);
    EXPECT_EQ(
        set.at("limit_bytes").get<std::uint64_t>(),
        json({"info", path()}).at("frames").at("total").get<std::uint64_t>() * 20 / 100 * 4096);
    fails({"map", path(), "editor", "0x10000", "4KiB", "--lazy"}, 3, "no_space", "limit");
    fails({"space", "fork", path(), "editor", "fork"}, 3, "no_space", "limit");
    well({"unmap", path(), "editor", "0x100000000", "1GiB"});
    well({"map", path(), "editor", "0x10000", "4KiB", "--lazy"});
    EXPECT_EQ(well({"overcommit", path()}).find("never, 4.00 KiB committed of "), 0u);
    EXPECT_NE(well({"info", path()}).find("overcommit  never, 4.00 KiB"), std::string::npos);
    well({"overcommit", path(), "--policy", "heuristic"});
    fails({"map", path(), "editor", "0x100000000", "1GiB", "--lazy"}, 3, "no_space", "heuristic");
    fails({"overcommit", path(), "--ratio", "0"}, 2, "invalid_argument", "percent");
    fails({"overcommit", path(), "--policy", "sometimes"}, 2, "invalid_argument", "never");
}

}  // namespace
}  // namespace holdfast::test
