// What verify and repair know of mapped files: damage to a file's record, to what says of which
// file a range is, and what stays.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <optional>

#include "format/annotation.hpp"
#include "format/file_record.hpp"
#include "format/space_record.hpp"
#include "store/store_state.hpp"
#include "support/files_fixture.hpp"

namespace holdfast::test {
namespace {

using format::FileRecord;

class MappedFilesRepair : public MappedFiles {
  protected:
    // A private and a shared mapping, of each one page loaded, and a plain page.
    Store make_store(const std::string& file) const { return make_store(file, pool_); }
    static Store make_store(const std::string& file, const TemporaryPool& pool) {
        Store store = pool.create();
        Space a = value_of(store.create_space("a"));
        must(a.map({kPrivate, 3 * kPageSize}, protection::rw, mapping(file)));
        must(a.map({kShared, 3 * kPageSize}, protection::rw, mapping(file, true)));
        must(a.map({kPlain, kPageSize}, protection::rw));
        write(a, kPrivate, "private");
        write(a, kShared, "shared");
        write(a, kPlain, "plain");
        expect_clean(store);
        return store;
    }
    static std::byte* record_of(const Store& store) {
        return store.state().memory.host(store.state().files.all().front()->record());
    }
    RepairReport repair(bool lost_pages = false) const { return repair(lost_pages, pool_); }
    static RepairReport repair(bool lost_pages, const TemporaryPool& pool) {
        return value_of(repair_file(
            pool.path(),
            {.remove_lost_pages = lost_pages, .emulation = PmemEmulation::on, .threads = 1}));
    }
    static constexpr VirtAddr kPrivate{0x4000'0000}, kShared{0x5000'0000}, kPlain{0x6000'0000};
};

TEST_F(MappedFilesRepair, EachByteOfTheRecordIsChecked) {
    const std::string file = make("file", 3);
    Store store = make_store(file);
    std::byte* const record = record_of(store) + format::kFileRecordAt;
    const std::size_t used = FileRecord::of(record_of(store)).used_bytes();
    for (std::size_t at = 0; at < used; ++at) {
        SCOPED_TRACE(at);
        record[at] ^= std::byte{4};
        const VerifyReport report = store.verify({.threads = 1});
        ASSERT_FALSE(report.clean());
        EXPECT_EQ(report.findings.front().what.substr(0, 1), "I");
        record[at] ^= std::byte{4};
    }
    expect_clean(store);
}

TEST_F(MappedFilesRepair, ARecordThatIsLostTakesWhatWasNotLoadedWithIt) {
    const std::string file = make("file", 3);
    {
        Store store = make_store(file);
        record_of(store)[format::kFileRecordAt + 20] ^= std::byte{1};
    }
    {
        Store store = pool_.open();
        Space a = value_of(store.open_space("a"));
        EXPECT_EQ(bytes_at(a, kPrivate.bits(), 7), "private");
        EXPECT_EQ(fault_at(a, kPrivate + kPageSize), FaultKind::file_missing);
        EXPECT_EQ(fault_at(a, kShared), FaultKind::file_missing);
    }
    EXPECT_FALSE(repair().repaired.empty());
    Store store = pool_.open();
    Space a = value_of(store.open_space("a"));
    expect_clean(store);
    EXPECT_EQ(bytes_at(a, kPrivate.bits(), 7), "private");
    EXPECT_EQ(bytes_at(a, kShared.bits(), 6), "shared");
    EXPECT_EQ(bytes_at(a, kPlain.bits(), 5), "plain");
    EXPECT_EQ(fault_at(a, kPrivate + kPageSize), FaultKind::not_mapped);
    EXPECT_EQ(fault_at(a, kShared + kPageSize), FaultKind::not_mapped);
    EXPECT_TRUE(value_of(store.files()).empty());
    // And it can be mapped again.
    must(a.map({kPrivate + kPageSize, kPageSize}, protection::rw, mapping(file, true, kPageSize)));
    EXPECT_EQ(bytes_at(a, kPrivate.bits() + kPageSize, 4), "file");
    expect_clean(store);
}

TEST_F(MappedFilesRepair, WhatSaysWhichFileIsLost) {
    const std::string file = make("file", 3);
    {
        Store store = make_store(file);
        auto& state = store.state();
        const auto space = value_of(state.find_space("a"));
        const pool::OrderedMap map(*state.pool, space->annotations);
        const std::uint64_t page = table::page_index(kPrivate, space->levels);
        map.visit(format::Annotation::encode_key(page),
                  [&](std::string_view, std::string_view value) {
                      const_cast<char*>(value.data())[9] ^= 1;
                      return false;
                  });
        const VerifyReport report = store.verify();
        ASSERT_FALSE(report.clean());
        EXPECT_EQ(report.findings.front().what, "I5 metadata");
        std::byte byte{};
        EXPECT_EQ(Space(space).read(kPrivate + kPageSize, {&byte, 1}).error().code,
                  ErrorCode::damaged);
    }
    repair();
    Store store = pool_.open();
    Space a = value_of(store.open_space("a"));
    expect_clean(store);
    EXPECT_EQ(bytes_at(a, kPrivate.bits(), 7), "private");
    EXPECT_EQ(fault_at(a, kPrivate + kPageSize), FaultKind::not_mapped);
    EXPECT_EQ(bytes_at(a, kShared.bits() + kPageSize, 4), "file");
}

// The name of a file object leads elsewhere: only the way to the record was lost, and so no range,
// no page and nothing that was written.
TEST_F(MappedFilesRepair, AnObjectThatOnlyLostItsNameIsFoundAgain) {
    const std::string file = make("file", 3);
    for (const unsigned bit : {0U, 1U, 3U, 7U, 12U, 20U, 40U, 63U}) {
        SCOPED_TRACE(bit);
        const TemporaryPool pool;
        {
            Store store = make_store(file, pool);
            const auto object = store.state().files.all().front();
            bool found = false;
            store.state().directory().visit(FileRecord::name_of(object->owner()),
                                            [&](std::string_view, std::string_view value) {
                                                const_cast<char*>(value.data())[bit / 8] ^=
                                                    static_cast<char>(1 << bit % 8);
                                                found = true;
                                                return false;
                                            });
            ASSERT_TRUE(found);
            ASSERT_FALSE(store.verify().clean());
        }
        const RepairReport report = repair(false, pool);
        EXPECT_FALSE(report.repaired.empty());
        for (const Finding& each : report.repaired) EXPECT_EQ(each.what, "I6 directory");
        Store store = pool.open();
        expect_clean(store);
        Space a = value_of(store.open_space("a"));
        EXPECT_EQ(bytes_at(a, kPrivate.bits(), 7), "private");
        EXPECT_EQ(bytes_at(a, kShared.bits(), 6), "shared");
        EXPECT_EQ(bytes_at(a, kPrivate.bits() + kPageSize, 4), "file");
        EXPECT_EQ(bytes_at(a, kShared.bits() + 2 * kPageSize, 4), "file");
        ASSERT_EQ(value_of(store.files()).size(), 1U);
        EXPECT_TRUE(value_of(store.files())[0].is_mapped);
    }
}

// A space that shares a half has no annotations for it, and need not.
TEST_F(MappedFilesRepair, AFileInASupervisorHalfIsNoFinding) {
    const std::string file = make("file", 3);
    constexpr VirtAddr kHalf{0xffff'8000'0000'0000};
    {
        Store store = make_store(file);
        Space kernel = value_of(store.create_space("kernel", {.is_supervisor = true}));
        Space one = value_of(store.create_space("one", {.supervisor = "kernel"}));
        must(kernel.map({kHalf, 3 * kPageSize}, protection::rw, mapping(file, true)));
        EXPECT_EQ(bytes_at(one, kHalf.bits(), 6), "shared");
        expect_clean(store);
    }
    EXPECT_TRUE(repair().repaired.empty());
    Store store = pool_.open();
    EXPECT_EQ(bytes_at(value_of(store.open_space("one")), kHalf.bits() + kPageSize, 4), "file");
}

// Of a damaged space nobody knows what it maps, and repair may bring it back.
TEST_F(MappedFilesRepair, NoFileIsForgottenWhileASpaceIsDamaged) {
    const std::string file = make("file", 3);
    Store store = make_store(file);
    std::byte* const record =
        store.state().memory.host(value_of(store.state().find_space("a"))->record);
    const auto forget = [&] {
        const auto done = store.forget_file(file);
        return done ? ErrorCode::io : done.error().code;
    };
    EXPECT_EQ(forget(), ErrorCode::busy);
    record[offsetof(format::SpaceRecord, name)] ^= std::byte{1};
    EXPECT_EQ(forget(), ErrorCode::damaged);
    ASSERT_EQ(value_of(store.files()).size(), 1U);
    EXPECT_FALSE(value_of(store.files())[0].is_mapped);
    record[offsetof(format::SpaceRecord, name)] ^= std::byte{1};
    EXPECT_EQ(forget(), ErrorCode::busy);
    expect_clean(store);
}

TEST_F(MappedFilesRepair, PagesOfAFileThatIsGoneStayUnlessAskedFor) {
    const std::string file = make("file", 3);
    make_store(file);
    fs::rename(file, file + ".away");
    EXPECT_TRUE(repair().repaired.empty());
    fs::rename(file + ".away", file);
    {
        Store store = pool_.open();
        EXPECT_EQ(bytes_at(value_of(store.open_space("a")), kShared.bits(), 6), "shared");
    }
    fs::remove(file);
    EXPECT_FALSE(repair(true).repaired.empty());
    Store store = pool_.open();
    Space a = value_of(store.open_space("a"));
    expect_clean(store);
    EXPECT_EQ(fault_at(a, kShared), FaultKind::not_mapped);
    EXPECT_EQ(bytes_at(a, kPrivate.bits(), 7), "private");
    must(a.unmap({kPrivate, 3 * kPageSize}));
    must(a.unmap({kShared, 3 * kPageSize}));
    must(store.forget_file(file));
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
