// ctest-labels: noasan
//
// AddressSanitizer's own mappings are terabytes, which a core dump would have to hold.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>

#include "holdfast/holdfast.hpp"
#include "support/elf_builder.hpp"
#include "support/subject_process.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(ImportCore, WhatGcoreWritesOfAProcess) {
    if (std::system("gcore >/dev/null 2>&1; test $? -ne 127") != 0)
        GTEST_SKIP() << "gcore is not installed; it comes with gdb";
    const ScratchFolder folder;
    const SubjectProcess subject;
    subject.stop();
    const std::string prefix = folder / "core";
    const int status = std::system(
        fmt::format("gcore -o {} {} >{}.log 2>&1", prefix, subject.pid(), prefix).c_str());
    ASSERT_EQ(status, 0) << read_file(prefix + ".log");
    const std::string path = fmt::format("{}.{}", prefix, subject.pid());

    const TemporaryPool pool;
    {
        Store store = pool.create();
        const auto report = value_of(import_core(store, "core", path));
        EXPECT_GT(report.stored_bytes, 4_MiB);
        const Space space = value_of(store.open_space("core"));
        const SpaceInfo info = space.info();
        EXPECT_EQ(info.mapped_bytes, report.mapped_bytes);
        EXPECT_EQ(info.resident_bytes, report.stored_bytes);
        const auto maps = value_of(space.maps());
        const std::string program = std::filesystem::canonical("/proc/self/exe").string();
        EXPECT_TRUE(std::any_of(maps.begin(), maps.end(), [&](const Mapping& mapping) {
            return mapping.name == program && mapping.protection.executable();
        }));
    }
    EXPECT_EQ(compare_in_new_process(pool.path(), "core", subject.pid(), ComparedWith::core), "");
    expect_clean(pool.open());
}

TEST(ImportCore, TakesWhatTheDumpLeavesOutFromTheFilesOrNotAtAll) {
    const ScratchFolder folder;
    std::string library(0x2800, '\0');
    for (std::size_t i = 0; i < library.size(); ++i) library[i] = file_byte(i + 5);
    write_file(folder / "library", library);

    ElfBuilder elf(ET_CORE);
    elf.mapped_files(0x800, {{0x10000, 0x14000, 0, folder / "library"},
                             {0x20000, 0x21000, 1, folder / "gone (deleted)"},
                             {0x30000, 0x31000, 1, folder / "library"}})
        .load(PF_R | PF_X, 0x10000, 0x1000, 0x1000, 0x4000)  // one page dumped, two in the file
        .load(PF_R, 0x20000, 0x2000, 0, 0x1000)              // the file is gone
        .load(PF_R | PF_W, 0x30000, 0x2000, 0, 0x3000)       // the file, then nothing's
        .load(PF_R, 0x40000, 0x2000, 0, 0x2000)              // the kernel's own
        .load(0, 0x50000, 0x2000, 0, 0x1000)                 // a guard
        .load(PF_R | PF_W, 0x60000, 0x2000, 0x1000, 0x1000)
        .load(PF_R | PF_X, 0xffff'ffff'ff60'0000, 0x2000, 0x1000, 0x1000);  // [vsyscall]
    const std::string core = elf.bytes(0x3000);
    const TemporaryPool pool;
    Store store = pool.create();
    const auto report = value_of(import_core(store, "core", write_file(folder / "core", core)));
    const Space space = value_of(store.open_space("core"));

    std::vector<std::string> lines;
    for (const Mapping& mapping : value_of(space.maps()))
        lines.push_back(fmt::format("{:x}-{:x} {} {}+{:x}", mapping.range.start.bits(),
                                    mapping.range.end().bits(), mapping.protection.to_string(),
                                    mapping.name.substr(mapping.name.rfind('/') + 1),
                                    mapping.name_offset));
    EXPECT_THAT(lines, ElementsAre("10000-13000 r-xu library+0", "30000-31000 rw-u library+1000",
                                   "31000-33000 rw-u +0", "60000-61000 rw-u +0"));
    EXPECT_EQ(bytes_at(space, 0x10000, 0x1000), core.substr(0x1000, 0x1000));
    EXPECT_EQ(bytes_at(space, 0x11000, 0x1800), library.substr(0x1000));
    EXPECT_EQ(bytes_at(space, 0x12800, 0x800), std::string(0x800, '\0'));
    EXPECT_EQ(bytes_at(space, 0x30000, 0x1000), library.substr(0x1000, 0x1000));
    EXPECT_EQ(bytes_at(space, 0x31000, 0x2000), std::string(0x2000, '\0'));
    EXPECT_EQ(bytes_at(space, 0x60000, 0x1000), core.substr(0x2000, 0x1000));
    EXPECT_EQ(report.mapped_bytes, 0x7000u);
    EXPECT_EQ(report.stored_bytes, 0x5000u);
    EXPECT_EQ(report.skipped_bytes, 0x1000u + 0x1000u + 0x2000u);
    expect_clean(store);
}

TEST(ImportCore, SaysWhatIsWrongWithAFile) {
    const ScratchFolder folder;
    const TemporaryPool pool;
    Store store = pool.create();
    const auto refused = [&](const std::string& path) {
        const auto outcome = import_core(store, "core", path);
        if (outcome) stop_test(path + " was imported");
        EXPECT_TRUE(value_of(store.space_names()).empty());
        EXPECT_THAT(outcome.error().message, HasSubstr(path));
        return outcome.error();
    };
    const auto refused_message = [&](const std::string& name, const std::string& bytes) {
        const Error error = refused(write_file(folder / name, bytes));
        EXPECT_EQ(error.code, ErrorCode::invalid_argument);
        return error.message;
    };
    EXPECT_EQ(refused(folder / "nothing").code, ErrorCode::not_found);
    EXPECT_THAT(refused("/proc/self/exe").message, HasSubstr("not a core dump"));
    EXPECT_THAT(refused_message("text", "core dumped"), HasSubstr("not an ELF file"));

    ElfBuilder elf(ET_CORE);
    elf.mapped_files(0x800, {{0x10000, 0x14000, 0, "/lib/library"}})
        .load(PF_R, 0x10000, 0x1000, 0x2000, 0x2000);
    const std::string whole = elf.bytes(0x3000);
    EXPECT_THAT(refused_message("segment cut", whole.substr(0, 0x2800)), HasSubstr("cut off"));
    EXPECT_THAT(refused_message("table cut", whole.substr(0, 100)), HasSubstr("cut off"));
    ElfBuilder other = elf;
    other.segments[0].p_offset = 0x2ff0;
    EXPECT_THAT(refused_message("notes cut", other.bytes(0x3000)), HasSubstr("cut off"));
    other = elf;
    other.segments[1].p_vaddr += 8;
    EXPECT_THAT(refused_message("crooked", other.bytes(0x3000)), HasSubstr("page"));
    other = elf;
    other.note_bytes[20] = char(0x7f);  // the count of files
    EXPECT_THAT(refused_message("bad list", other.bytes(0x3000)), HasSubstr("NT_FILE"));
    expect_clean(store);

    value_of(store.create_space("taken"));
    EXPECT_EQ(import_core(store, "taken", write_file(folder / "core", whole)).error().code,
              ErrorCode::already_exists);
}

}  // namespace
}  // namespace holdfast::test

int main(int argc, char** argv) { return holdfast::test::image_test_main(argc, argv); }
