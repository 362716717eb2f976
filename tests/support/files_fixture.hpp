// A folder with files to map, in emulated PMem; removed at the end.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "support/temporary_pool.hpp"

namespace holdfast::test {

namespace fs = std::filesystem;

inline constexpr VirtAddr kPlace(0x4000'0000);

// A page whose bytes tell which one it is.
inline std::string page_of(const std::string& what, std::uint64_t page) {
    std::string text = fmt::format("{} page {}.", what, page);
    text.resize(kPageSize, static_cast<char>('a' + page % 26));
    return text;
}

class MappedFiles : public testing::Test {
  protected:
    MappedFiles() {
        std::string pattern = "/dev/shm/holdfast-files-XXXXXX";
        folder_ = mkdtemp(pattern.data());
    }
    ~MappedFiles() override { fs::remove_all(folder_); }

    std::string path(const std::string& name = "file") const { return folder_ / name; }
    // A file of so many pages, the last one cut off by so many bytes.
    std::string make(const std::string& name, std::uint64_t pages,
                     std::uint64_t missing = 0) const {
        std::ofstream file(path(name), std::ios::binary | std::ios::trunc);
        for (std::uint64_t page = 0; page < pages; ++page) {
            const std::string bytes = page_of(name, page);
            file.write(bytes.data(), static_cast<std::streamsize>(
                                         bytes.size() - (page + 1 == pages ? missing : 0)));
        }
        return path(name);
    }
    static std::string content(const std::string& file) {
        std::ifstream stream(file, std::ios::binary);
        return {std::istreambuf_iterator<char>(stream), {}};
    }
    static MapOptions mapping(const std::string& file, bool shared = false,
                              std::uint64_t offset = 0) {
        return {.file = FileMapping{.path = file, .offset = offset, .shared = shared}};
    }
    static void write(Space& space, VirtAddr address, const std::string& text) {
        must(space.write(address, std::as_bytes(std::span(text))));
        must(space.persist({address, text.size()}));
    }
    static FaultKind fault_at(const Space& space, VirtAddr address) {
        const auto found = space.translate(address);
        return found ? FaultKind::not_mapped : found.error().kind;
    }
    static Error error_of(const Result<void>& result) {
        return result ? Error{ErrorCode::io, "no error"} : result.error();
    }
    // Written by others, at another time than the clock has now.
    static void touch(const std::string& file) {
        const timespec times[2] = {{0, UTIME_OMIT}, {1'000'000'000, 17}};
        ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
    }

    TemporaryPool pool_;
    fs::path folder_;
};

}  // namespace holdfast::test
