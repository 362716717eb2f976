// map --file, sync, file list, accept, forget.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class FileCommands : public CommandTest {
  protected:
    FileCommands() : file_(path() + ".mapped") { std::ofstream(file_) << "what the file has\n"; }
    ~FileCommands() override { fs::remove(file_); }
    std::string content() const {
        std::ifstream stream(file_);
        return {std::istreambuf_iterator<char>(stream), {}};
    }
    const std::string file_;
};

TEST_F(FileCommands, MapWriteAndSync) {
    create_space();
    well({"map", path(), "editor", "0x10000", "8KiB", "--file", file_, "--shared"});
    well({"map", path(), "editor", "0x20000", "4KiB", "--prot", "r", "--file", file_, "--private"});
    EXPECT_EQ(well({"maps", path(), "editor"}),
              fmt::format("{:73}{}\n{:73}{}\n", "00010000-00012000 rw-s 00000000 00:00 0", file_,
                          "00020000-00021000 r--p 00000000 00:00 0", file_));
    EXPECT_EQ(json({"maps", path(), "editor"})[0].at("file"), "shared");
    EXPECT_EQ(well({"read", path(), "editor", "0x10000", "8"}), "what the");
    well({"write", path(), "editor", "0x10005"}, "a pool");
    EXPECT_EQ(well({"read", path(), "editor", "0x20000", "12"}), "what a pooll");
    EXPECT_EQ(content(), "what the file has\n");
    well({"sync", path(), "editor"});
    EXPECT_EQ(content(), "what a poolle has\n");
    well({"write", path(), "editor", "0x10000"}, "That");
    well({"sync", path(), "editor", "0x10000", "4KiB"});
    EXPECT_EQ(content(), "That a poolle has\n");
    const auto list = json({"file", "list", path()});
    ASSERT_EQ(list.size(), 1u);
    EXPECT_EQ(list[0].at("path"), file_);
    EXPECT_EQ(list[0].at("resident_bytes"), 4096);
    EXPECT_EQ(list[0].at("mapped"), true);
    EXPECT_FALSE(list[0].contains("fault"));
}

TEST_F(FileCommands, AFileThatChangedIsAcceptedOrForgotten) {
    create_space();
    well({"map", path(), "editor", "0x10000", "4KiB", "--file", file_, "--shared"});
    well({"write", path(), "editor", "0x10000"}, "kept");
    std::ofstream(file_) << "others have written this\n";
    fails({"read", path(), "editor", "0x10000", "4"}, 3, "lost", "file_changed");
    EXPECT_EQ(json({"translate", path(), "editor", "0x10000"})[0].at("fault"), "file_changed");
    EXPECT_EQ(json({"file", "list", path()})[0].at("fault"), "file_changed");
    EXPECT_THAT(well({"file", "list", path()}), HasSubstr("has grown"));
    well({"file", "accept", path(), file_, "--keep-pool"});
    EXPECT_EQ(well({"read", path(), "editor", "0x10000", "4"}), "kept");
    well({"sync", path(), "editor"});
    std::ofstream(file_) << "and once more, at length\n";
    well({"file", "accept", path(), file_});
    EXPECT_EQ(well({"read", path(), "editor", "0x10000", "8"}), "and once");
    fails({"file", "forget", path(), file_}, 3, "busy", "unmap it first");
    well({"unmap", path(), "editor", "0x10000", "4KiB"});
    well({"file", "forget", path(), file_});
    EXPECT_EQ(json({"file", "list", path()}), nlohmann::json::array());
}

}  // namespace
}  // namespace holdfast::test
