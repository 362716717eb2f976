// space create, list, rename, remove.
#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using SpaceCommands = CommandTest;

TEST_F(SpaceCommands, CreateListRenameRemove) {
    create_pool();
    EXPECT_EQ(well({"space", "list", path()}), "");
    EXPECT_EQ(json({"space", "list", path()}), nlohmann::json::array());
    well({"space", "create", path(), "shell"});
    well({"space", "create", path(), "editor", "--levels", "5"});
    well({"space", "create", path(), "small", "--levels", "3"});
    EXPECT_EQ(well({"space", "list", path()}), "editor\nshell\nsmall\n");
    well({"space", "rename", path(), "shell", "zsh"});
    well({"space", "remove", path(), "small"});
    EXPECT_EQ(json({"space", "list", path()}),
              nlohmann::json::parse(R"([{"name": "editor"}, {"name": "zsh"}])"));
    EXPECT_EQ(json({"info", path()}).at("spaces").at(0).at("levels"), 5);
    EXPECT_EQ(json({"info", path()}).at("spaces").at(1).at("levels"), 4);
}

TEST_F(SpaceCommands, NamesMayBeWordsOfTheCommandLine) {
    create_pool();
    for (const char* name : {"info", "list", "space", "create"}) {
        well({"space", "create", path(), name});
        well({"map", path(), name, "0x1000", "4KiB"});
        EXPECT_NE(well({"maps", path(), name}), "");
    }
    EXPECT_EQ(well({"space", "list", path()}), "create\ninfo\nlist\nspace\n");
    well({"space", "create", path(), "--", "-dashed"});
    well({"space", "remove", path(), "--", "-dashed"});
}

TEST_F(SpaceCommands, NamesInTheWayOrUnknownAreRefused) {
    create_space("editor");
    well({"space", "create", path(), "shell"});
    fails({"space", "create", path(), "editor"}, 3, "already_exists", "editor");
    fails({"space", "create", path(), ""}, 2, "invalid_argument", "name");
    fails({"space", "create", path(), std::string(1000, 'n')}, 2, "invalid_argument", "name");
    fails({"space", "rename", path(), "nobody", "somebody"}, 3, "not_found", "nobody");
    fails({"space", "rename", path(), "editor", "shell"}, 3, "already_exists", "shell");
    fails({"space", "remove", path(), "nobody"}, 3, "not_found", "nobody");
    fails({"maps", path(), "nobody"}, 3, "not_found", "nobody");
    EXPECT_EQ(well({"space", "list", path()}), "editor\nshell\n");
}

TEST_F(SpaceCommands, SupervisorHalf) {
    create_space();
    well({"space", "create", path(), "kernel", "--make-supervisor"});
    well({"space", "create", path(), "process", "--supervisor", "kernel"});
    well({"map", path(), "kernel", "0xffff800000000000", "8KiB", "--name", "[kernel]"});
    const std::string maps = well({"maps", path(), "process"});
    EXPECT_NE(maps.find("[kernel]"), std::string::npos);
    EXPECT_EQ(well({"maps", path(), "kernel"}), maps);
    fails({"unmap", path(), "process", "0xffff800000000000", "4KiB"}, 3, "permission_denied",
          "kernel");
    fails({"space", "remove", path(), "kernel"}, 3, "busy", "process");
    fails({"space", "create", path(), "other", "--supervisor", "editor"}, 2, "invalid_argument",
          "editor");
    const auto info = json({"info", path()});
    EXPECT_EQ(info.at("spaces")[2].at("supervisor"), "kernel");
    EXPECT_TRUE(info.at("spaces")[0].at("supervisor").is_null());
    EXPECT_TRUE(json({"verify", path()}).at("clean"));
}

}  // namespace
}  // namespace holdfast::test
