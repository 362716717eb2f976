// A space written out as a core dump comes back the same, and gdb reads it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <initializer_list>
#include <optional>

#include "holdfast/holdfast.hpp"
#include "image/elf_file.hpp"
#include "store/store_state.hpp"
#include "support/elf_builder.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

class ExportCore : public testing::Test {
  protected:
    ExportCore()
        : opened(pool.create()), opened_space(value_of(opened->create_space("exported"))) {}
    void write(std::uint64_t address, const std::string& bytes) {
        must(space.write(VirtAddr(address), std::as_bytes(std::span(bytes))));
    }
    ExportReport exported(const ExportOptions& options = {}) {
        return value_of(export_core(space, core, options));
    }
    // Another space with what the core has.
    Space imported() {
        value_of(import_core(store, "imported", core));
        return value_of(store.open_space("imported"));
    }
    // What was checked is not looked at again before the store is opened again.
    void damage(std::initializer_list<std::uint64_t> addresses) {
        for (const std::uint64_t address : addresses) {
            const auto found = space.translate(VirtAddr(address));
            *store.state().memory.metadata(found->physical.frame()).word0 ^= 1 << 20;
        }
        opened_space.reset();
        opened.reset();
        opened = pool.open();
        opened_space = value_of(opened->open_space("exported"));
    }

    const ScratchFolder folder;
    const std::string core = folder / "core";
    const TemporaryPool pool;
    std::optional<Store> opened;
    std::optional<Space> opened_space;
    Store& store = *opened;
    Space& space = *opened_space;
};

TEST_F(ExportCore, ComesBackTheSame) {
    must(space.map({VirtAddr(0x10000), 5 * kPageSize}, protection::rw | protection::u,
                   {.name = "/bin/editor", .name_offset = 0x3000}));
    must(space.map({VirtAddr(0x15000), 2 * kPageSize}, protection::rx | protection::u));
    must(space.map({VirtAddr(0x40'0000'0000), 8_GiB}, protection::rw | protection::u,
                   {.lazy = true, .name = "[heap]"}));
    must(space.map({VirtAddr(0x7fff'ffff'f000), kPageSize}, protection::r | protection::u,
                   {.name = "[stack]", .name_offset = 7}));
    write(0x10ffe, "over an edge of pages");
    write(0x13fff, std::string(4097, 'x'));
    write(0x41'2345'6000, "far away");
    std::uint64_t told = 0, total = 0;
    const ExportReport report = exported({.progress = [&](std::uint64_t done, std::uint64_t all) {
        EXPECT_GE(done, told);
        told = done;
        total = all;
    }});
    EXPECT_EQ(report.mapped_bytes, 8_GiB + 8 * kPageSize);
    EXPECT_EQ(report.written_bytes, 5 * kPageSize);  // the rest is zeros
    EXPECT_TRUE(report.lost.empty());
    EXPECT_EQ(told, report.mapped_bytes);
    EXPECT_EQ(total, report.mapped_bytes);
    struct stat status{};
    ASSERT_EQ(stat(core.c_str(), &status), 0);
    EXPECT_GT(static_cast<std::uint64_t>(status.st_size), 8_GiB);
    EXPECT_LT(static_cast<std::uint64_t>(status.st_blocks) * 512, 1_MiB) << "zeros are no holes";

    const Space back = imported();
    auto maps = value_of(space.maps()), maps_back = value_of(back.maps());
    ASSERT_EQ(maps.size(), maps_back.size());
    for (std::size_t i = 0; i < maps.size(); ++i) {
        maps[i].resident_bytes = maps_back[i].resident_bytes = 0;  // pages of zeros have no frame
        EXPECT_EQ(maps[i], maps_back[i]);
    }
    EXPECT_EQ(bytes_at(back, 0x10000, 0x7000), bytes_at(space, 0x10000, 0x7000));
    EXPECT_EQ(bytes_at(back, 0x41'2345'5000, 0x3000), bytes_at(space, 0x41'2345'5000, 0x3000));
    EXPECT_EQ(back.info().resident_bytes, report.written_bytes);
    expect_clean(store);
}

TEST_F(ExportCore, GdbReadsIt) {
    if (std::system("gdb --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "gdb is not installed";
    must(space.map({VirtAddr(0x5555'0000'0000), 4 * kPageSize}, protection::rw | protection::u));
    must(space.map({VirtAddr(0x7000'0000'0000), 4 * kPageSize}, protection::rw, {.lazy = true}));
    write(0x5555'0000'1ff8, "holdfast was here");
    exported();
    const std::string log = folder / "log";
    const int status =
        std::system(fmt::format("gdb -nx -batch -ex 'x/s 0x555500001ff8' -ex 'x/gx 0x700000001000' "
                                "-ex 'info registers rip' -c {} >{} 2>&1 </dev/null",
                                core, log)
                        .c_str());
    ASSERT_EQ(status, 0) << read_file(log);
    EXPECT_THAT(read_file(log), HasSubstr("\"holdfast was here\""));
    EXPECT_THAT(read_file(log), HasSubstr("0x700000001000:\t0x0000000000000000"));
    EXPECT_THAT(read_file(log), HasSubstr("rip"));
    EXPECT_THAT(read_file(log), HasSubstr("exported"));
}

TEST_F(ExportCore, WhatIsDamagedIsRefusedOrLeftOutAndListed) {
    must(space.map({VirtAddr(0x10000), 8 * kPageSize}, protection::rw, {.name = "/file"}));
    for (std::uint64_t page = 0; page < 8; ++page)
        write(0x10000 + page * kPageSize, fmt::format("page {}", page));
    damage({0x12000, 0x13000, 0x16000});
    write_file(core, "what was there before");
    const auto refused = export_core(space, core);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::damaged);
    EXPECT_THAT(refused.error().message, HasSubstr("0x12000"));
    EXPECT_EQ(read_file(core), "what was there before");

    const ExportReport report = exported({.salvage = true});
    EXPECT_THAT(report.lost, testing::ElementsAre(Range{VirtAddr(0x12000), 2 * kPageSize},
                                                  Range{VirtAddr(0x16000), kPageSize}));
    EXPECT_EQ(report.written_bytes, 5 * kPageSize);
    const auto elf = value_of(image::ElfFile::open(core));
    std::vector<std::array<std::uint64_t, 3>> segments;
    for (const GElf_Phdr& segment : value_of(elf.loadable_segments()))
        segments.push_back({segment.p_vaddr, segment.p_memsz, segment.p_filesz});
    EXPECT_THAT(segments,
                testing::ElementsAre(std::array<std::uint64_t, 3>{0x10000, 0x2000, 0x2000},
                                     std::array<std::uint64_t, 3>{0x12000, 0x2000, 0},
                                     std::array<std::uint64_t, 3>{0x14000, 0x2000, 0x2000},
                                     std::array<std::uint64_t, 3>{0x16000, 0x1000, 0},
                                     std::array<std::uint64_t, 3>{0x17000, 0x1000, 0x1000}));
    const Space back = imported();
    for (const std::uint64_t page : {0, 1, 4, 5, 7})
        EXPECT_EQ(bytes_at(back, 0x10000 + page * kPageSize, 6), fmt::format("page {}", page));
    for (const std::uint64_t page : {2, 3, 6})
        EXPECT_FALSE(back.translate(VirtAddr(0x10000 + page * kPageSize)))
            << "bytes were invented for a lost page";
}

TEST_F(ExportCore, MoreSegmentsThanAHeaderCanCount) {
    // Every other page: as many mappings.
    constexpr std::uint64_t kCount = 66'000;
    {
        Transaction transaction = store.begin();
        for (std::uint64_t i = 0; i < kCount; ++i)
            must(transaction.map(space, {VirtAddr(0x10'0000 + 2 * i * kPageSize), kPageSize},
                                 protection::rw, {.lazy = true}));
        must(transaction.commit());
    }
    const std::uint64_t last = 0x10'0000 + 2 * (kCount - 1) * kPageSize;
    write(last, "the last one");
    exported();
    const Space back = imported();
    EXPECT_EQ(value_of(back.maps()).size(), kCount);
    EXPECT_EQ(bytes_at(back, last, 12), "the last one");
}

TEST_F(ExportCore, SaysWhatIsWrong) {
    must(space.map({VirtAddr(0x10000), kPageSize}, protection::rw));
    EXPECT_EQ(export_core(space, "/nonexistent/core").error().code, ErrorCode::not_found);
    EXPECT_EQ(export_core(space, folder / ".").error().code, ErrorCode::invalid_argument);
    Transaction transaction = store.begin();
    must(transaction.map(space, {VirtAddr(0x20000), kPageSize}, protection::rw));
    EXPECT_EQ(export_core(space, core).error().code, ErrorCode::busy);
    transaction.abort();
    // Where a file cannot be as long as the space is.
    must(space.map({VirtAddr(0x1000'0000'0000), std::uint64_t{1} << 43}, protection::rw,
                   {.lazy = true}));
    const auto done = export_core(space, core);
    if (!done) {
        EXPECT_EQ(done.error().code, ErrorCode::no_space) << done.error().message;
    }
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "."), {}), done ? 1 : 0)
        << "something was left behind";
}

}  // namespace
}  // namespace holdfast::test
