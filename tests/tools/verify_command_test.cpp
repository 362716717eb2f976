// verify, and what the other commands say of a pool that is damaged.
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "store/store_state.hpp"
#include "tools/command.hpp"

namespace holdfast::test {
namespace {

class VerifyCommand : public CommandTest {
  protected:
    void flip(std::uint64_t offset, unsigned bit) const {
        std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
        const auto place = static_cast<std::streamoff>(offset + bit / 8);
        file.seekg(place);
        const int byte = file.get();
        file.seekp(place);
        file.put(static_cast<char>(byte ^ 1 << bit % 8));
    }
    // Flips a bit of the frame with this physical address.
    void damage(std::uint64_t physical, unsigned bit) const {
        const auto region = json({"info", path()}).at("regions").at(0);
        const std::uint64_t base =
            std::strtoull(region.at("physical_base").get<std::string>().c_str(), nullptr, 0);
        flip(region.at("file_offset").get<std::uint64_t>() + (physical - base), bit);
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

TEST_F(VerifyCommand, ChangesNothingAlsoOfAReadOnlyFile) {
    create_space();
    well({"map", path(), "editor", "0x1000", "8KiB"});
    damage(root(), 1);
    const std::filesystem::path file = path();
    const auto content = [&] {
        std::ifstream stream(file, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    const std::string before = content();
    for (const auto mode : {0600, 0400}) {
        ASSERT_EQ(chmod(path().c_str(), static_cast<mode_t>(mode)), 0);
        const auto written = std::filesystem::last_write_time(file);
        const Command verified = run({"verify", path(), "--emulate-pmem", "--json"});
        EXPECT_EQ(verified.status, 1) << verified.errors;
        EXPECT_EQ(verified.json().at("mapped_pages"), 0);
        EXPECT_TRUE(content() == before) << "the file was changed";
        EXPECT_EQ(std::filesystem::last_write_time(file), written);
    }
}

TEST_F(VerifyCommand, WhatOpenRefusesIsAFinding) {
    create_space();
    well({"map", path(), "editor", "0x1000", "8KiB"});
    // The word that counts the regions: what lies in them is checked all the same.
    std::uint64_t at = 0;
    {
        const Store store = pool().open();
        at = store.state().pool->offset_of(&store.state().memory.superblock().region_count);
    }
    flip(at, 0);
    fails({"info", path()}, 1, "damaged", "number of regions");
    const Command verified = run({"verify", path(), "--emulate-pmem", "--json"});
    EXPECT_EQ(verified.status, 1) << verified.errors;
    EXPECT_EQ(verified.json().at("mapped_pages"), 2);
    ASSERT_EQ(verified.json().at("findings").size(), 1U);
    EXPECT_EQ(verified.json().at("findings").at(0).at("what"), "I8 superblock");
    flip(at, 0);
    // The record of the region: then nothing else can be.
    flip(at + offsetof(format::Superblock, regions) - offsetof(format::Superblock, region_count) +
             offsetof(format::RegionRecord, base_frame),
         3);
    const Command record = run({"verify", path(), "--emulate-pmem", "--json"});
    EXPECT_EQ(record.status, 1) << record.errors;
    EXPECT_EQ(record.json().at("findings").at(0).at("what"), "I8 superblock");
}

TEST_F(VerifyCommand, WritableAndExecutablePagesAreListedAndNoFinding) {
    create_space();
    well({"map", path(), "editor", "0x1000", "12KiB", "--prot", "rwx"});
    well({"map", path(), "editor", "0x4000", "4MiB", "--prot", "rwx", "--lazy"});
    well({"map", path(), "editor", "0x800000", "4KiB", "--prot", "rx"});
    well({"map", path(), "editor", "0x801000", "4KiB", "--prot", "rw"});
    well({"map", path(), "editor", "0x900000", "4KiB", "--prot", "rwxu"});
    const auto report = json({"verify", path(), "--wx"});
    EXPECT_EQ(report.at("clean"), true);
    const auto& listed = report.at("writable_executable");
    ASSERT_EQ(listed.size(), 2U) << listed;
    EXPECT_EQ(listed.at(0).at("space"), "editor");
    EXPECT_EQ(listed.at(0).at("range").at("start"), "0x1000");
    EXPECT_EQ(listed.at(0).at("range").at("end"), "0x404000");
    EXPECT_EQ(listed.at(1).at("range").at("start"), "0x900000");
    EXPECT_FALSE(json({"verify", path()}).contains("writable_executable"));
    EXPECT_EQ(report.at("frames_by_kind").at("data"), 3 + 1 + 1 + 1);
}

TEST_F(VerifyCommand, ATruncatedPoolIsRefused) {
    create_space();
    ASSERT_EQ(truncate(path().c_str(), 100'000), 0);
    fails({"verify", path()}, 1, "damaged", path());
}

}  // namespace
}  // namespace holdfast::test
