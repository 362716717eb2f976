#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "holdfast/holdfast.hpp"
#include "support/elf_builder.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> lines(const Space& space) {
    std::vector<std::string> result;
    for (const Mapping& mapping : value_of(space.maps()))
        result.push_back(fmt::format("{:x}-{:x} {} {}+{:x}", mapping.range.start.bits(),
                                     mapping.range.end().bits(), mapping.protection.to_string(),
                                     mapping.name.substr(mapping.name.rfind('/') + 1),
                                     mapping.name_offset));
    return result;
}

class ImportElf : public testing::Test {
  protected:
    Space imported(const std::string& path, const ImportOptions& options = {}) {
        report = value_of(import_elf(store, "program", path, options));
        return value_of(store.open_space("program"));
    }
    Error refused(const std::string& path) {
        const auto outcome = import_elf(store, "program", path);
        if (outcome) stop_test(path + " was imported");
        EXPECT_TRUE(value_of(store.space_names()).empty());
        EXPECT_THAT(outcome.error().message, HasSubstr(path));
        return outcome.error();
    }
    std::string refused_message(const std::string& name, const std::string& bytes) {
        const Error error = refused(write_file(folder / name, bytes));
        EXPECT_EQ(error.code, ErrorCode::invalid_argument);
        return error.message;
    }

    const ScratchFolder folder;
    const TemporaryPool pool;
    Store store = pool.create();
    ImportReport report;
};

// This very program, byte for byte against its file.
TEST_F(ImportElf, ARealProgram) {
    std::uint64_t last_done = 0, last_total = 1;
    const Space space =
        imported("/proc/self/exe", {.progress = [&](std::uint64_t done, std::uint64_t total) {
                     last_done = done;
                     last_total = total;
                 }});
    EXPECT_EQ(last_done, last_total);
    const std::string file = read_file("/proc/self/exe");
    const auto& header = *reinterpret_cast<const Elf64_Ehdr*>(file.data());
    const auto* const segments = reinterpret_cast<const Elf64_Phdr*>(file.data() + header.e_phoff);
    const std::uint64_t bias = header.e_type == ET_DYN ? 0x5555'5555'4000 : 0;
    EXPECT_EQ(report.entry_point, header.e_entry + bias);
    std::uint64_t bytes = 0;
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        const Elf64_Phdr& segment = segments[i];
        if (segment.p_type != PT_LOAD) continue;
        const std::uint64_t start = segment.p_vaddr + bias;
        EXPECT_EQ(bytes_at(space, start, segment.p_filesz),
                  file.substr(segment.p_offset, segment.p_filesz));
        const std::uint64_t zeros = segment.p_memsz - segment.p_filesz;
        EXPECT_EQ(bytes_at(space, start + segment.p_filesz, zeros), std::string(zeros, '\0'));
        const auto last = space.translate(VirtAddr(start + segment.p_filesz - 1));
        if (last) {
            EXPECT_EQ(last->protection.writable(), (segment.p_flags & PF_W) != 0);
            EXPECT_EQ(last->protection.executable(), (segment.p_flags & PF_X) != 0);
            EXPECT_TRUE(last->protection.user());
        }
        bytes += segment.p_memsz;
    }
    EXPECT_GE(report.mapped_bytes, bytes);
    EXPECT_EQ(report.skipped_bytes, 0u);
    const SpaceInfo info = space.info();
    EXPECT_EQ(info.mapped_bytes, report.mapped_bytes);
    EXPECT_EQ(info.resident_bytes, report.stored_bytes);
    EXPECT_EQ(value_of(space.maps()).front().name,
              std::filesystem::canonical("/proc/self/exe").string());
    expect_clean(store);
}

TEST_F(ImportElf, SegmentsThatShareAPageKeepTheBytesOfBoth) {
    ElfBuilder elf(ET_EXEC);
    elf.header.e_entry = 0x40'0234;
    elf.load(PF_R | PF_X, 0x40'0000, 0, 0x1800, 0x1800)
        .load(PF_R | PF_W, 0x40'1800, 0x1800, 0x400, 0x3000);
    const std::string file = elf.bytes(0x2100);
    const Space space = imported(write_file(folder / "program", file));
    EXPECT_EQ(report.entry_point, 0x40'0234u);
    EXPECT_THAT(lines(space),
                ElementsAre("400000-401000 r-xu program+0", "401000-402000 rw-u program+1000",
                            "402000-405000 rw-u +0"));
    EXPECT_EQ(bytes_at(space, 0x40'0000, 0x1c00), file.substr(0, 0x1c00));
    EXPECT_EQ(bytes_at(space, 0x40'1c00, 0x2c00), std::string(0x2c00, '\0'));
    EXPECT_EQ(report.mapped_bytes, 0x5000u);
    EXPECT_EQ(report.stored_bytes, 0x2000u);
}

TEST_F(ImportElf, TheLaterSegmentWinsWhereAPageShowsOtherBytes) {
    ElfBuilder elf(ET_EXEC);
    elf.load(PF_R, 0x40'0000, 0, 0x1800, 0x1800).load(PF_R | PF_W, 0x40'1800, 0x3800, 0x400, 0x400);
    const std::string file = elf.bytes(0x3d00);
    const Space space = imported(write_file(folder / "program", file));
    EXPECT_THAT(lines(space),
                ElementsAre("400000-401000 r--u program+0", "401000-402000 rw-u program+3000"));
    // The whole page of the file shows, and zeros behind its end.
    EXPECT_EQ(bytes_at(space, 0x40'1000, 0xd00), file.substr(0x3000, 0xd00));
    EXPECT_EQ(bytes_at(space, 0x40'1d00, 0x300), std::string(0x300, '\0'));
}

TEST_F(ImportElf, ASegmentWithinAnotherSplitsIt) {
    ElfBuilder elf(ET_EXEC);
    elf.load(PF_R, 0x40'0000, 0, 0x5000, 0x5000)
        .load(PF_R | PF_X, 0x40'2000, 0x6000, 0x1000, 0x1000)
        .load(PF_R | PF_W, 0x50'0010, 0, 0, 0x1010)  // only .bss
        .load(PF_W, 0x60'0000, 0, 0x1000, 0x1000);   // cannot be read
    const std::string file = elf.bytes(0x7000);
    const Space space = imported(write_file(folder / "program", file));
    EXPECT_THAT(lines(space),
                ElementsAre("400000-402000 r--u program+0", "402000-403000 r-xu program+6000",
                            "403000-405000 r--u program+3000", "500000-502000 rw-u +0"));
    EXPECT_EQ(bytes_at(space, 0x40'0000, 0x5000),
              file.substr(0, 0x2000) + file.substr(0x6000, 0x1000) + file.substr(0x3000, 0x2000));
    EXPECT_EQ(report.skipped_bytes, 0x1000u);
}

TEST_F(ImportElf, APositionIndependentProgramIsPlacedAsWithoutRandomisation) {
    ElfBuilder elf(ET_DYN);
    elf.header.e_entry = 0x1010;
    elf.load(PF_R | PF_X, 0x1000, 0x1000, 0x1000, 0x1000);
    const std::string path = write_file(folder / "program", elf.bytes(0x2000));
    imported(path);
    EXPECT_EQ(report.entry_point, 0x5555'5555'4010u);
    const auto small = value_of(import_elf(store, "small", path, {.levels = Levels::three}));
    EXPECT_EQ(small.entry_point, 0x2a'aaaa'a010u);
    const auto large = value_of(import_elf(store, "large", path, {.levels = Levels::five}));
    EXPECT_EQ(large.entry_point, 0x5555'5555'4010u);
}

TEST_F(ImportElf, SaysWhatIsWrongWithAFile) {
    EXPECT_EQ(refused(folder / "nothing").code, ErrorCode::not_found);
    EXPECT_EQ(refused("/tmp").code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused("/dev/null").code, ErrorCode::invalid_argument);
    EXPECT_THAT(refused_message("empty", ""), HasSubstr("not an ELF file"));
    EXPECT_THAT(refused_message("script", "#!/bin/sh\nexit 0\n"), HasSubstr("not an ELF file"));
    EXPECT_THAT(refused_message("archive", "!<arch>\n"), HasSubstr("not an ELF file"));

    ElfBuilder elf(ET_EXEC);
    elf.load(PF_R, 0x40'0000, 0, 0x2000, 0x2000);
    const std::string whole = elf.bytes(0x2000);
    EXPECT_THAT(refused_message("segment cut", whole.substr(0, 0x1fff)), HasSubstr("cut off"));
    EXPECT_THAT(refused_message("table cut", whole.substr(0, 100)), HasSubstr("cut off"));
    EXPECT_THAT(refused_message("header cut", whole.substr(0, 30)),
                testing::AnyOf(HasSubstr("cut off"), HasSubstr("not an ELF file"),
                               HasSubstr("not a 64-bit")));

    ElfBuilder other = elf;
    other.header.e_ident[EI_CLASS] = ELFCLASS32;
    EXPECT_THAT(refused_message("32 bit", other.bytes(0x2000)), HasSubstr("64-bit"));
    other = elf;
    other.header.e_ident[EI_DATA] = ELFDATA2MSB;
    EXPECT_THAT(refused_message("big-endian", other.bytes(0x2000)), HasSubstr("big-endian"));
    other = elf;
    other.header.e_type = ET_REL;
    EXPECT_THAT(refused_message("object", other.bytes(0x2000)), HasSubstr("not a program"));
    other.header.e_type = ET_CORE;
    EXPECT_THAT(refused_message("core", other.bytes(0x2000)), HasSubstr("core dump"));
    other = elf;
    other.segments[0].p_type = PT_NULL;
    EXPECT_THAT(refused_message("no segments", other.bytes(0x2000)), HasSubstr("without loadable"));
    other = elf;
    other.segments[0].p_memsz = 0x1000;
    EXPECT_THAT(refused_message("smaller", other.bytes(0x2000)), HasSubstr("damaged"));
    other = elf;
    other.segments[0].p_vaddr = ~std::uint64_t{0} - 0x1800;
    EXPECT_THAT(refused_message("wrapping", other.bytes(0x2000)), HasSubstr("damaged"));
    other = elf;
    other.segments[0].p_vaddr += 16;
    EXPECT_THAT(refused_message("crooked", other.bytes(0x2000)), HasSubstr("page"));
    other = elf;
    other.segments[0].p_offset = ~std::uint64_t{0} - 100;
    EXPECT_THAT(refused_message("far away", other.bytes(0x2000)), HasSubstr("cut off"));
    expect_clean(store);

    const std::string path = write_file(folder / "program", whole);
    value_of(store.create_space("taken"));
    EXPECT_EQ(import_elf(store, "taken", path).error().code, ErrorCode::already_exists);
}

// Headers with any bit wrong are refused or imported, and nothing worse.
TEST_F(ImportElf, SurvivesDamagedHeaders) {
    ElfBuilder elf(ET_EXEC);
    elf.load(PF_R, 0x40'0000, 0, 0x1800, 0x1800).load(PF_R | PF_W, 0x40'1800, 0x1800, 0x400, 0x900);
    const std::string whole = elf.bytes(0x2000);
    const std::size_t header_bits = 8 * (sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr));
    for (std::size_t bit = 0; bit < header_bits; ++bit) {
        std::string damaged = whole;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
        const std::string path = write_file(folder / "damaged", damaged);
        const auto outcome = import_elf(store, "program", path);
        EXPECT_EQ(value_of(store.space_names()).size(), outcome ? 1u : 0u) << "bit " << bit;
        if (outcome) must(store.remove_space("program"));
    }
    value_of(store.release_limbo());
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
