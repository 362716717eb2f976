// repair, export: what they say and how they end.
#include <filesystem>

#include "store/store_state.hpp"
#include "tools/command.hpp"

namespace holdfast::test {
namespace {

class RepairCommand : public CommandTest {
  protected:
    // A space of four pages, of which the second is lost.
    void damage() const {
        create_space();
        well({"map", path(), "editor", "0x10000", "16KiB"});
        well({"write", path(), "editor", "0x10000"}, "first");
        well({"write", path(), "editor", "0x12000"}, "third");
        const Store store = pool().open();
        const Space space = value_of(store.open_space("editor"));
        const auto found = space.translate(VirtAddr(0x11000));
        *store.state().memory.metadata(found->physical.frame()).word0 ^= 1 << 20;
    }
};

TEST_F(RepairCommand, SaysWhatItWillDoAndThenDoesIt) {
    damage();
    const Command dry = run({"repair", path(), "--dry-run", "--emulate-pmem", "--json"});
    EXPECT_EQ(dry.status, 1) << dry.errors;
    EXPECT_EQ(dry.json().at("clean"), false);
    EXPECT_EQ(run({"verify", path(), "--emulate-pmem"}).status, 1) << "a dry run repairs nothing";
    const auto findings = dry.json().at("findings");
    ASSERT_FALSE(findings.empty());
    EXPECT_EQ(findings.at(0).at("space"), "editor");
    EXPECT_EQ(findings.at(0).at("range").at("start"), "0x11000");
    EXPECT_EQ(findings.at(0).at("range").at("end"), "0x12000");

    const auto done = json({"repair", path()});
    EXPECT_EQ(done.at("clean"), true);
    EXPECT_EQ(done.at("findings"), findings);
    EXPECT_EQ(done.at("freed_frames"), 1);
    EXPECT_EQ(json({"verify", path()}).at("clean"), true);
    EXPECT_EQ(well({"read", path(), "editor", "0x10000", "5"}), "first");
    EXPECT_EQ(well({"read", path(), "editor", "0x12000", "5"}), "third");
    EXPECT_EQ(well({"repair", path()}), "clean: nothing to repair\n");
}

TEST_F(RepairCommand, InWords) {
    damage();
    const Command dry = run({"repair", path(), "--dry-run", "--emulate-pmem"});
    EXPECT_NE(dry.output.find("I5 metadata: space \"editor\" 0x11000-0x12000: "), std::string::npos)
        << dry.output;
    EXPECT_NE(dry.output.find("the entry is emptied"), std::string::npos) << dry.output;
    EXPECT_NE(well({"repair", path()}).find("the store is clean"), std::string::npos);
}

TEST_F(RepairCommand, ExportSavesWhatIsLeft) {
    damage();
    const std::string core = path() + ".core";
    fails({"export", path(), "editor", core}, 1, "damaged", "0x11000");
    EXPECT_FALSE(std::filesystem::exists(core));
    ASSERT_EQ(std::filesystem::last_write_time(path()), std::filesystem::last_write_time(path()));
    const Command saved =
        run({"export", path(), "editor", core, "--salvage", "--emulate-pmem", "--json"});
    EXPECT_EQ(saved.status, 1) << saved.errors;
    ASSERT_EQ(saved.json().at("lost").size(), 1U);
    EXPECT_EQ(saved.json().at("lost").at(0).at("start"), "0x11000");
    EXPECT_EQ(saved.json().at("written_bytes"), 2 * 4096);
    well({"repair", path()});
    well({"import", path(), "copy", "--core", core});
    EXPECT_EQ(well({"read", path(), "copy", "0x10000", "5"}), "first");
    EXPECT_EQ(well({"read", path(), "copy", "0x12000", "5"}), "third");
    fails({"read", path(), "copy", "0x11000", "5"}, 3, "not_mapped", "0x11000");
    EXPECT_EQ(json({"export", path(), "editor", core}).at("lost"), nlohmann::json::array());
    std::filesystem::remove(core);
    fails({"export", path(), "nobody", core}, 3, "not_found", "nobody");
    fails({"export", path(), "editor", "/nonexistent/core"}, 3, "not_found", "/nonexistent/core");
    fails({"export", path(), "editor", "/dev/null"}, 2, "invalid_argument", "/dev/null");
}

}  // namespace
}  // namespace holdfast::test
