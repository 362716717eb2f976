// repair: what it says and how it ends.
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

}  // namespace
}  // namespace holdfast::test
