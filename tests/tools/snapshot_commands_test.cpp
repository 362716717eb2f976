// space fork; snapshot create, list, rollback, diff, remove.
#include "tools/command.hpp"

namespace holdfast::test {
namespace {

class SnapshotCommands : public CommandTest {
  protected:
    SnapshotCommands() {
        create_space("editor");
        well({"map", path(), "editor", "0x40000000", "12KiB"});
        write("editor", "0x40000000", "monday");
    }
    void write(const std::string& space, const std::string& address, const std::string& text) {
        well({"write", path(), space, address}, text);
    }
    std::string read(const std::string& space) {
        return well({"read", path(), space, "0x40000000", "7"});
    }
};

TEST_F(SnapshotCommands, ForkHasWhatTheSpaceHad) {
    well({"space", "fork", path(), "editor", "copy"});
    write("editor", "0x40000000", "tuesday");
    EXPECT_EQ(read("copy"), std::string("monday\0", 7));
    EXPECT_EQ(read("editor"), "tuesday");
    EXPECT_EQ(well({"space", "list", path()}), "copy\neditor\n");
    fails({"space", "fork", path(), "editor", "copy"}, 3, "already_exists", "copy");
    fails({"space", "fork", path(), "nobody", "other"}, 3, "not_found", "nobody");
    EXPECT_TRUE(json({"verify", path()}).at("clean"));
}

TEST_F(SnapshotCommands, CreateListDiffRollbackRemove) {
    well({"snapshot", "create", path(), "editor", "editor@monday"});
    write("editor", "0x40000000", "tuesday");
    well({"map", path(), "editor", "0x50000000", "4KiB"});
    well({"protect", path(), "editor", "0x40002000", "4KiB", "--prot", "r"});
    EXPECT_EQ(json({"snapshot", "list", path(), "editor"}),
              nlohmann::json::parse(
                  R"([{"name": "editor@monday", "of": "editor", "created_epoch": 3}])"));
    EXPECT_NE(well({"snapshot", "list", path()}).find("editor@monday  of editor"),
              std::string::npos);
    EXPECT_EQ(well({"snapshot", "diff", path(), "editor@monday", "editor"}),
              "40000000-40001000 content\n40002000-40003000 protection\n"
              "50000000-50001000 only_in_second\n");
    EXPECT_EQ(json({"snapshot", "diff", path(), "editor", "editor@monday"}).at(0),
              nlohmann::json::parse(R"({"start": 1073741824, "length": 4096, "kind": "content"})"));
    fails({"map", path(), "editor@monday", "0x60000000", "4KiB"}, 3, "permission_denied",
          "is a snapshot");
    EXPECT_EQ(read("editor@monday"), std::string("monday\0", 7));
    well({"snapshot", "rollback", path(), "editor", "editor@monday"});
    EXPECT_EQ(read("editor"), std::string("monday\0", 7));
    EXPECT_EQ(well({"snapshot", "diff", path(), "editor@monday", "editor"}), "");
    fails({"snapshot", "remove", path(), "editor"}, 2, "invalid_argument", "is no snapshot");
    fails({"snapshot", "rollback", path(), "editor", "editor"}, 2, "invalid_argument",
          "is no snapshot");
    well({"snapshot", "remove", path(), "editor@monday"});
    EXPECT_EQ(json({"snapshot", "list", path()}), nlohmann::json::array());
    EXPECT_TRUE(json({"verify", path()}).at("clean"));
}

}  // namespace
}  // namespace holdfast::test
