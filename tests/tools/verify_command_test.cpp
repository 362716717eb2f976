// verify, and what the other commands say of a pool that is damaged.
#include <cstdlib>
#include <fstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

class VerifyCommand : public CommandTest {
  protected:
    // Flips a bit of the frame with this physical address.
    void damage(std::uint64_t physical, unsigned bit) const {
        const auto region = json({"info", path()}).at("regions").at(0);
        const std::uint64_t base =
            std::strtoull(region.at("physical_base").get<std::string>().c_str(), nullptr, 0);
        std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
        const auto place = static_cast<std::streamoff>(
            region.at("file_offset").get<std::uint64_t>() + (physical - base) + bit / 8);
        file.seekg(place);
        const int byte = file.get();
        file.seekp(place);
        file.put(static_cast<char>(byte ^ 1 << bit % 8));
    }
    std::uint64_t root() const {
        const auto info = json({"info", path()});
        return std::strtoull(info.at("spaces").at(0).at("root").get<std::string>().c_str(), nullptr,
                             0);
    }
};

TEST_F(VerifyCommand, Clean) {
    create_space();
    well({"map", path(), "editor", "0x1000", "4MiB"});
    const auto report = json({"verify", path()});
    EXPECT_EQ(report.at("clean"), true);
    EXPECT_EQ(report.at("findings"), nlohmann::json::array());
    EXPECT_EQ(report.at("mapped_pages"), 1024);
    const auto& frames = report.at("frames");
    EXPECT_EQ(frames.at("total"),
              frames.at("reachable").get<int>() + frames.at("limbo").get<int>() +
                  frames.at("building").get<int>() + frames.at("free").get<int>());
    EXPECT_EQ(well({"verify", path()}).find("clean: "), 0u);
}

TEST_F(VerifyCommand, ADamagedEntryIsFoundAndNamed) {
    create_space();
    well({"map", path(), "editor", "0x1000", "8KiB"});
    // The bit R/W in the root's first entry.
    damage(root(), 1);

    const Command verified = run({"verify", path(), "--emulate-pmem", "--json"});
    EXPECT_EQ(verified.status, 1);
    EXPECT_EQ(verified.errors, "");
    const auto report = verified.json();
    EXPECT_EQ(report.at("clean"), false);
    bool named = false;
    for (const auto& finding : report.at("findings")) {
        EXPECT_FALSE(finding.at("what").get<std::string>().empty());
        EXPECT_FALSE(finding.at("detail").get<std::string>().empty());
        if (finding.at("what") != "I1 entry" || finding.at("space") != "editor") continue;
        named = true;
        EXPECT_EQ(finding.at("range").at("start"), "0x0");
        EXPECT_EQ(finding.at("range").at("end"), "0x8000000000");
    }
    EXPECT_TRUE(named) << report;

    const Command text = run({"verify", path(), "--emulate-pmem"});
    EXPECT_EQ(text.status, 1);
    EXPECT_NE(text.output.find("I1 entry: space \"editor\" 0x0-0x8000000000: "), std::string::npos)
        << text.output;

    // The fault is the answer of a translation, and damage the status of a read.
    EXPECT_EQ(json({"translate", path(), "editor", "0x1000"}).at(0).at("fault"), "damaged_entry");
    fails({"read", path(), "editor", "0x1000", "4"}, 1, "damaged", "0x1000");
}

TEST_F(VerifyCommand, ATruncatedPoolIsRefused) {
    create_space();
    ASSERT_EQ(truncate(path().c_str(), 100'000), 0);
    fails({"verify", path()}, 1, "damaged", path());
}

}  // namespace
}  // namespace holdfast::test
