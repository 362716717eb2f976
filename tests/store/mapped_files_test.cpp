// Mapped files (include/holdfast/file.hpp): private and shared, loaded on fault, and what becomes
// of them when the file is not what it was.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "support/files_fixture.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

TEST_F(MappedFiles, PrivatePagesAreLoadedOnFaultAndStay) {
    const std::string file = make("file", 3);
    {
        Store store = pool_.create();
        Space space = value_of(store.create_space("a"));
        must(space.map({kPlace, 3 * kPageSize}, protection::rw, mapping(file)));
        EXPECT_EQ(fault_at(space, kPlace), FaultKind::file_backed);
        EXPECT_EQ(bytes_at(space, kPlace.bits(), 2 * kPageSize),
                  page_of("file", 0) + page_of("file", 1));
        EXPECT_TRUE(space.translate(kPlace));
        EXPECT_EQ(fault_at(space, kPlace + 2 * kPageSize), FaultKind::file_backed);
        write(space, kPlace + 100, "mine");
        EXPECT_EQ(content(file), page_of("file", 0) + page_of("file", 1) + page_of("file", 2));
        expect_clean(store);
    }
    Store store = pool_.open();
    Space space = value_of(store.open_space("a"));
    EXPECT_EQ(bytes_at(space, kPlace.bits() + 100, 4), "mine");
    EXPECT_EQ(bytes_at(space, kPlace.bits() + 2 * kPageSize, kPageSize), page_of("file", 2));
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 1U);
    EXPECT_EQ(maps[0].name, file);
    EXPECT_TRUE(maps[0].is_file);
    EXPECT_FALSE(maps[0].is_shared);
    EXPECT_EQ(maps[0].resident_bytes, 3 * kPageSize);
    expect_clean(store);
}

TEST_F(MappedFiles, AnOffsetAndTheEndOfAFile) {
    const std::string file = make("file", 3, 1000);
    Store store = pool_.create();
    Space space = value_of(store.create_space("a"));
    must(space.map({kPlace, 3 * kPageSize}, protection::rw, mapping(file, false, kPageSize)));
    EXPECT_EQ(bytes_at(space, kPlace.bits(), kPageSize), page_of("file", 1));
    EXPECT_EQ(bytes_at(space, kPlace.bits() + kPageSize, kPageSize),
              page_of("file", 2).substr(0, kPageSize - 1000) + std::string(1000, '\0'));
    EXPECT_EQ(fault_at(space, kPlace + 2 * kPageSize), FaultKind::file_end);
    std::byte byte{};
    const Error error = error_of(space.read(kPlace + 2 * kPageSize, {&byte, 1}));
    EXPECT_EQ(error.code, ErrorCode::not_mapped);
    EXPECT_THAT(error.message, HasSubstr("behind its end"));
    // A part keeps its place in the file.
    must(space.unmap({kPlace, kPageSize}));
    EXPECT_EQ(value_of(space.maps())[0].name_offset, 2 * kPageSize);
    EXPECT_EQ(bytes_at(space, kPlace.bits() + kPageSize, 4), page_of("file", 2).substr(0, 4));
    expect_clean(store);
}

TEST_F(MappedFiles, AChangedFileIsAFaultAndLoadedPrivatePagesStay) {
    struct Change {
        std::function<void(const std::string&)> change;
        FaultKind kind;
    };
    const Change changes[] = {
        {[](const std::string& file) { fs::remove(file); }, FaultKind::file_missing},
        {[](const std::string& file) { fs::resize_file(file, 100); }, FaultKind::file_truncated},
        {[](const std::string& file) { fs::resize_file(file, 1_MiB); }, FaultKind::file_changed},
        {[](const std::string& file) { touch(file); }, FaultKind::file_changed},
        {[](const std::string& file) {
             fs::copy_file(file, file + ".new");
             fs::rename(file + ".new", file);
         },
         FaultKind::file_replaced},
    };
    for (const bool reopens : {false, true}) {
        for (const auto& [change, kind] : changes) {
            SCOPED_TRACE(fmt::format("{}{}", to_string(kind), reopens ? ", reopened" : ""));
            const std::string file = make("file", 3);
            const TemporaryPool pool;
            std::optional<Store> store = pool.create();
            std::optional<Space> space = value_of(store->create_space("a"));
            must(space->map({kPlace, 3 * kPageSize}, protection::rw, mapping(file)));
            EXPECT_EQ(bytes_at(*space, kPlace.bits(), kPageSize), page_of("file", 0));
            if (reopens) {
                space.reset();
                store.reset();
            }
            change(file);
            if (reopens) {
                store = pool.open();
                space = value_of(store->open_space("a"));
            }
            EXPECT_EQ(bytes_at(*space, kPlace.bits(), kPageSize), page_of("file", 0));
            EXPECT_EQ(fault_at(*space, kPlace + kPageSize), kind);
            std::byte byte{};
            const Error error = error_of(space->read(kPlace + kPageSize, {&byte, 1}));
            EXPECT_EQ(error.code, ErrorCode::lost);
            EXPECT_THAT(error.message, HasSubstr(file));
            EXPECT_THAT(error.message, HasSubstr("unmap"));
            EXPECT_EQ(error_of(space->fault(kPlace + kPageSize, protection::w)).code,
                      ErrorCode::lost);
            must(space->unmap({kPlace, 3 * kPageSize}));
            expect_clean(*store);
        }
    }
}

TEST_F(MappedFiles, WhoOnlyLooksLoadsNothing) {
    const std::string file = make("file", 3, 1000);
    Store store = pool_.create();
    Space space = value_of(store.create_space("a"));
    must(space.map({kPlace, 4 * kPageSize}, protection::rw, mapping(file, true)));
    write(space, kPlace + kPageSize, "written");
    std::string bytes(3 * kPageSize, 'x');
    const PeekPiece piece{kPlace, std::as_writable_bytes(std::span(bytes))};
    EXPECT_FALSE(peek(space, {&piece, 1}).fault);
    std::string expected = content(file) + std::string(1000, '\0');
    expected.replace(kPageSize, 7, "written");
    EXPECT_EQ(bytes, expected);
    // A core has what a debugger would see.
    value_of(export_core(space, path("core")));
    EXPECT_EQ(value_of(space.maps())[0].resident_bytes, kPageSize);
    value_of(import_core(store, "copy", path("core")));
    EXPECT_EQ(bytes_at(value_of(store.open_space("copy")), kPlace.bits(), 3 * kPageSize), expected);
    const PeekPiece behind{kPlace + 3 * kPageSize, std::as_writable_bytes(std::span(bytes))};
    EXPECT_EQ(peek(space, {&behind, 1}).fault->kind, FaultKind::file_end);
    const std::byte byte{'P'};
    const PokePiece poked{kPlace, {&byte, 1}};
    EXPECT_FALSE(value_of(poke(space, {&poked, 1})).fault);
    EXPECT_EQ(bytes_at(space, kPlace.bits(), 4), "Pile");
    expect_clean(store);
}

TEST_F(MappedFiles, AFileThatNobodyMapsAnyMoreMayBeAnotherOneNextTime) {
    const std::string file = make("file", 2);
    Store store = pool_.create();
    Space space = value_of(store.create_space("a"));
    must(space.map({kPlace, 2 * kPageSize}, protection::rw, mapping(file)));
    EXPECT_EQ(bytes_at(space, kPlace.bits(), 4), "file");
    fs::rename(make("new", 3), file);
    Space other = value_of(store.create_space("b"));
    EXPECT_EQ(error_of(other.map({kPlace, kPageSize}, protection::r, mapping(file))).code,
              ErrorCode::lost);
    must(space.unmap({kPlace, 2 * kPageSize}));
    must(other.map({kPlace, 3 * kPageSize}, protection::r, mapping(file)));
    EXPECT_EQ(bytes_at(other, kPlace.bits() + 2 * kPageSize, kPageSize), page_of("new", 2));
    EXPECT_EQ(value_of(store.files()).size(), 1U);
    expect_clean(store);
}

// What is not loaded differs if it is of another file, or of another place in it.
TEST_F(MappedFiles, DifferencesSeeWhichFileItIs) {
    const std::string file = make("file", 4), other = make("other", 4);
    Store store = pool_.create();
    Space a = value_of(store.create_space("a")), b = value_of(store.create_space("b"));
    const auto in_both = [&](std::uint64_t page, std::uint64_t pages, const MapOptions& of_a,
                             const MapOptions& of_b) {
        const Range range{kPlace + page * kPageSize, pages * kPageSize};
        must(a.map(range, protection::rw, of_a));
        must(b.map(range, protection::rw, of_b));
    };
    in_both(0, 3, mapping(file), mapping(file, true));
    in_both(10, 3, mapping(file), mapping(other));
    in_both(20, 2, mapping(file), mapping(file, false, kPageSize));
    // The same in one piece and in two, of which the second is another file's.
    must(a.map({kPlace + 30 * kPageSize, 4 * kPageSize}, protection::rw, mapping(file)));
    must(b.map({kPlace + 30 * kPageSize, 2 * kPageSize}, protection::rw, mapping(file)));
    must(b.map({kPlace + 32 * kPageSize, 2 * kPageSize}, protection::rw, mapping(other)));
    const auto content = [](std::uint64_t page, std::uint64_t pages) {
        return Difference{Difference::Kind::content,
                          {kPlace + page * kPageSize, pages * kPageSize}};
    };
    EXPECT_THAT(value_of(differences(a, b)),
                testing::ElementsAre(content(10, 3), content(20, 2), content(32, 2)));
    EXPECT_THAT(value_of(differences(a, a)), testing::IsEmpty());
    EXPECT_THAT(value_of(differences(a, value_of(store.fork_space("a", "c")))), testing::IsEmpty());
}

// Also in tables, and in a supervisor half.
TEST_F(MappedFiles, DifferencesOfLongRangesOfFiles) {
    const std::string file = make("file", 1), other = make("other", 1);
    for (const std::string& each : {file, other}) fs::resize_file(each, 8_MiB);
    Store store = pool_.create();
    constexpr VirtAddr kHalf{0xffff'8000'0000'0000};
    std::vector<Space> spaces;
    for (const auto& [name, kernel, in_half] :
         {std::tuple{"a", "k", file}, std::tuple{"b", "l", other}}) {
        Space object = value_of(store.create_space(kernel, {.is_supervisor = true}));
        must(object.map({kHalf, 2_MiB}, protection::rw, mapping(in_half)));
        spaces.push_back(value_of(store.create_space(name, {.supervisor = kernel})));
        must(spaces.back().map({kPlace, 4_MiB}, protection::rw, mapping(file)));
        must(spaces.back().map({kPlace + 8_MiB, 4_MiB}, protection::rw, mapping(in_half)));
    }
    const auto expected =
        testing::ElementsAre(Difference{Difference::Kind::content, {kPlace + 8_MiB, 4_MiB}},
                             Difference{Difference::Kind::content, {kHalf, 2_MiB}});
    EXPECT_THAT(value_of(differences(spaces[0], spaces[1])), expected);
}

TEST_F(MappedFiles, WhatCannotBeMapped) {
    Store store = pool_.create();
    Space space = value_of(store.create_space("a"));
    const Range range{kPlace, kPageSize};
    const auto refused = [&](const MapOptions& options, ErrorCode code, const char* why,
                             Range where, Protection protection = protection::rw) {
        const Error error = error_of(space.map(where, protection, options));
        EXPECT_EQ(error.code, code) << error.message;
        EXPECT_THAT(error.message, HasSubstr(why));
    };
    const std::string file = make("file", 3);
    refused(mapping(folder_), ErrorCode::invalid_argument, "regular file", range);
    refused(mapping("/dev/null"), ErrorCode::invalid_argument, "regular file", range);
    refused(mapping(path("none")), ErrorCode::not_found, "none", range);
    refused(mapping(file + "/below"), ErrorCode::not_found, "below", range);
    refused(mapping(file, false, 100), ErrorCode::invalid_argument, "multiple of 4096", range);
    refused(mapping(file, false, ~std::uint64_t{0xfff}), ErrorCode::invalid_argument, "256 TiB",
            {kPlace, 2 * kPageSize});
    refused(mapping(file), ErrorCode::invalid_argument, "wraps",
            {VirtAddr(~std::uint64_t{0xfff}), 2 * kPageSize});
    refused(mapping(file), ErrorCode::invalid_argument, "empty", {kPlace, 0});
    MapOptions named = mapping(file);
    named.name = "name";
    refused(named, ErrorCode::invalid_argument, "name", range);
    mkfifo(path("pipe").c_str(), 0600);
    refused(mapping(path("pipe")), ErrorCode::invalid_argument, "regular file", range);
    // Nobody else's name, either.
    EXPECT_EQ(store
                  .open_space("\x01"
                              "00002")
                  .error()
                  .code,
              ErrorCode::not_found);
    EXPECT_EQ(value_of(store.space_names()), std::vector<std::string>{"a"});
    EXPECT_TRUE(value_of(space.maps()).empty());
    must(space.map(range, protection::rw));
    refused(mapping(file), ErrorCode::overlap, "mapped already", range);
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
