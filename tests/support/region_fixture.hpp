// A store with pages in its pool and pages in another region, which all have text; and what may be
// expected of them when that region is not what it was.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "holdfast/holdfast.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {

inline constexpr std::uint64_t kRegionBytes = std::uint64_t{4} << 20;
inline constexpr VirtAddr kInPool{0x1000'0000}, kInRegion{0x2000'0000};
// More than come one by one, so that they are reserved; and behind them a few that are not.
inline constexpr std::uint64_t kPages = 40, kMorePages = 3;

inline std::string text_of(std::uint64_t page) { return fmt::format("page {:4}", page); }

class Regions : public testing::Test {
  protected:
    Regions() : store_(pool_.create()) {
        for (const std::string& path : {file(), copy(), file() + ".elsewhere"})
            std::filesystem::remove(path);
    }
    ~Regions() override {
        store_.reset();
        for (const std::string& path : {file(), copy(), file() + ".elsewhere"})
            std::filesystem::remove_all(path);
    }

    std::string file() const { return pool_.path() + ".region"; }
    std::string copy() const { return pool_.path() + ".copy"; }
    Store& store() { return *store_; }
    Space space() { return value_of(store().open_space("space")); }
    void close() { store_.reset(); }
    void reopen() {
        close();
        store_ = pool_.open();
    }

    // A space with pages in the pool and pages in the region, which all have text.
    void fill(unsigned region) {
        Space made = value_of(store().create_space("space"));
        must(made.map({kInPool, kPages * kPageSize}, protection::rw));
        must(made.map({kInRegion, kPages * kPageSize}, protection::rw, {.region = region}));
        must(made.map({kInRegion + kPages * kPageSize, kMorePages * kPageSize}, protection::rw,
                      {.region = region}));
        write_all(made, kInPool, kPages);
        write_all(made, kInRegion, kPages + kMorePages);
    }
    static void write_all(Space& space, VirtAddr start, std::uint64_t pages) {
        for (std::uint64_t page = 0; page < pages; ++page) {
            const std::string text = text_of(page);
            must(space.write(start + page * kPageSize, std::as_bytes(std::span(text))));
        }
        must(space.persist({start, pages * kPageSize}));
    }
    static void expect_all(const Space& space, VirtAddr start, std::uint64_t pages) {
        for (std::uint64_t page = 0; page < pages; ++page)
            EXPECT_EQ(bytes_at(space, (start + page * kPageSize).bits(), 9), text_of(page));
    }

    // Opening succeeds, and: the region is in this state; its pages from `from` on are faults of
    // this kind that name it; everything else reads as it was; and space around them can be used.
    void expect_lost(unsigned region, RegionState state, FaultKind kind, std::uint64_t from = 0) {
        reopen();
        const RegionInfo info = store().regions().at(region);
        EXPECT_STREQ(to_string(info.state), to_string(state)) << info.trouble;
        if (state != RegionState::attached) {
            EXPECT_THAT(info.trouble, testing::HasSubstr(fmt::format("region {}", region)));
        }
        Space opened = space();
        expect_all(opened, kInPool, kPages);
        expect_all(opened, kInRegion, from);
        for (std::uint64_t page = from; page < kPages + kMorePages; ++page) {
            // More often than a table is looked at before it is validated.
            for (int round = 0; round < 12; ++round) {
                const auto found = opened.translate(kInRegion + page * kPageSize);
                ASSERT_FALSE(found) << "page " << page;
                ASSERT_STREQ(to_string(found.error().kind), to_string(kind));
                ASSERT_EQ(found.error().region, region);
                ASSERT_EQ(found.error().protection, protection::rw);
            }
            std::byte byte{};
            const auto read = opened.read(kInRegion + page * kPageSize, {&byte, 1});
            ASSERT_FALSE(read);
            ASSERT_EQ(read.error().code, ErrorCode::lost);
            EXPECT_THAT(read.error().message, testing::HasSubstr(fmt::format("region {}", region)));
            ASSERT_EQ(opened.write(kInRegion + page * kPageSize, {&byte, 1}).error().code,
                      ErrorCode::lost);
            ASSERT_FALSE(opened.frame_bytes(kInRegion + page * kPageSize));
        }
        // In a table that has lost pages, too.
        const VirtAddr beside = kInRegion + 100 * kPageSize;
        must(opened.map({beside, kPageSize}, protection::rw));
        write_all(opened, beside, 1);
        expect_all(opened, beside, 1);
        must(opened.protect({kInRegion, 2 * kPageSize}, protection::r));
        must(opened.protect({kInRegion, 2 * kPageSize}, protection::rw));
        must(opened.unmap({beside, kPageSize}));
        // A change of so many entries copies the table.
        must(opened.protect({kInRegion, kPages * kPageSize}, protection::r));
        must(opened.protect({kInRegion, kPages * kPageSize}, protection::rw));
        for (std::uint64_t page = 0; page < kPages; ++page)
            ASSERT_EQ(opened.translate(kInRegion + page * kPageSize).has_value(), page < from);
        const VerifyReport report = store().verify();
        ASSERT_EQ(report.findings.size(), 1u) << "neighbours are told as one";
        EXPECT_EQ(report.findings[0].what, "lost page");
        EXPECT_EQ(report.findings[0].space, "space");
        EXPECT_EQ(report.findings[0].range,
                  (Range{kInRegion + from * kPageSize, (kPages + kMorePages - from) * kPageSize}));
        const auto maps = value_of(opened.maps());
        EXPECT_EQ(maps.back().name, "[lost]");
        EXPECT_EQ(maps.back().protection, protection::rw);
    }
    void expect_whole(unsigned region) {
        reopen();
        EXPECT_EQ(store().regions().at(region).state, RegionState::attached)
            << store().regions().at(region).trouble;
        expect_all(space(), kInPool, kPages);
        expect_all(space(), kInRegion, kPages + kMorePages);
        expect_clean(store());
    }
    // What is lost can be unmapped, and then nothing is amiss.
    void expect_unmappable() {
        Space opened = space();
        must(opened.unmap({kInRegion, kPageSize}));
        must(opened.unmap({kInRegion, (kPages + kMorePages) * kPageSize}));
        value_of(store().release_limbo());
        expect_clean(store());
        must(opened.map({kInRegion, kPages * kPageSize}, protection::rw));
        write_all(opened, kInRegion, kPages);
        expect_all(opened, kInRegion, kPages);
    }

    const TemporaryPool pool_;
    std::optional<Store> store_;
};

class ExternalRegion : public Regions {
  protected:
    ExternalRegion()
        : region_(value_of(store().add_external_region(file(), {.size_bytes = kRegionBytes}))) {
        fill(region_);
    }
    void write_newer() {
        const std::string text = "newer";
        must(space().write(kInRegion, std::as_bytes(std::span(text))));
    }
    const unsigned region_;
};

}  // namespace holdfast::test
