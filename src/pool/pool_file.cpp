#include "pool/pool_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <libpmemobj/pool_base.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "pool/descriptor.hpp"

namespace holdfast::pool {
namespace {

// libpmemobj's layout of the start of a pool (struct PMEMobjpool, version 6): a header of 4,096
// bytes that begins with a signature; the layout's name; where the heap begins; and, behind that
// descriptor of 2,048 bytes, where the root object is and how long the heap, the rest of the pool.
constexpr std::array<char, 8> kPoolSignature = {'P', 'M', 'E', 'M', 'O', 'B', 'J', 0};
constexpr std::size_t kLayoutNameAt = 4096, kLayoutNameSize = 1024;
constexpr std::size_t kHeapOffsetAt = kLayoutNameAt + kLayoutNameSize + 16;
constexpr std::size_t kRootOffsetAt = kLayoutNameAt + 2048;
constexpr std::size_t kHeapSizeAt = kRootOffsetAt + 32, kStartSize = kHeapSizeAt + 8;

std::uint64_t word_at(const std::string& bytes, std::size_t at) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    return word;
}

std::string read_start(const std::string& path, std::size_t size_bytes) {
    std::string bytes(size_bytes, '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(bytes.data(), static_cast<std::streamsize>(size_bytes));
    bytes.resize(static_cast<std::size_t>(file.gcount()));
    return bytes;
}

// `is_whole`: the file is all of the pool, and not the first part of a poolset.
Result<void> examine_pool_part(const std::string& path, const std::string& layout, bool is_whole,
                               bool to_write) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0) {
        if (errno == ENOENT)
            return fail(ErrorCode::not_found,
                        fmt::format("{}: no such file; make a store there with `create`", path));
        return fail(errno == EACCES ? ErrorCode::permission_denied : ErrorCode::io,
                    fmt::format("{}: {}", path, std::strerror(errno)));
    }
    if (S_ISCHR(status.st_mode)) return {};
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::not_a_pool,
                    fmt::format("{}: neither a file nor a device; name the pool's file", path));
    // The owner's write bit counts for root as well: who marks a file read-only means it.
    if (access(path.c_str(), R_OK) != 0)
        return fail(ErrorCode::permission_denied,
                    fmt::format("{}: not readable; give read permission", path));
    if (to_write && ((status.st_mode & 0222) == 0 || access(path.c_str(), W_OK) != 0))
        return fail(ErrorCode::permission_denied,
                    fmt::format("{}: not writable; opening a store replays its logs, so give write "
                                "permission or work on a copy",
                                path));
    const std::string start = read_start(path, kStartSize);
    if (start.size() < kPoolSignature.size() ||
        std::memcmp(start.data(), kPoolSignature.data(), kPoolSignature.size()) != 0)
        return fail(
            ErrorCode::not_a_pool,
            fmt::format("{}: not a libpmemobj pool; nothing was changed, name another file", path));
    const auto file_size = static_cast<std::uint64_t>(status.st_size);
    const bool has_start = start.size() == kStartSize;
    // libpmemobj would open a pool that was cut off, and write to it.
    if (!has_start || file_size < PMEMOBJ_MIN_PART ||
        (is_whole && file_size < word_at(start, kHeapOffsetAt) + word_at(start, kHeapSizeAt)))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the pool is cut off after {} bytes; restore it from a copy",
                                path, file_size));
    const char* const name = start.data() + kLayoutNameAt;
    const std::string found(name, strnlen(name, kLayoutNameSize));
    if (found != layout)
        return fail(ErrorCode::not_a_pool,
                    fmt::format("{}: a pool of another program (layout \"{}\", not \"{}\"); "
                                "nothing was changed, name another file",
                                path, found, layout));
    return {};
}

bool is_poolset(const std::string& path) { return read_start(path, 11) == "PMEMPOOLSET"; }

// Replicas are refused; the first part is returned.
Result<std::string> examine_poolset(const std::string& path) {
    std::ifstream file(path);
    std::string line, first_part;
    while (std::getline(file, line)) {
        std::istringstream words(line);
        std::string first, second;
        words >> first >> second;
        if (first == "REPLICA")
            return fail(
                ErrorCode::unsupported,
                fmt::format("{}: a poolset with replicas; holdfast writes frames by flushing "
                            "them, which no replica would see: remove the REPLICA section",
                            path));
        if (first_part.empty() && second.starts_with('/')) first_part = second;
    }
    if (first_part.empty())
        return fail(ErrorCode::not_a_pool, fmt::format("{}: a poolset that names no file", path));
    return first_part;
}

}  // namespace

bool may_be_mapped_as_copy(const std::string& path) {
    if (access(path.c_str(), W_OK) != 0) return false;
    struct stat status{};
    struct statvfs room{};
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) ||
        statvfs(path.c_str(), &room) != 0)
        return true;
    const auto size = static_cast<std::uint64_t>(status.st_size);
    const std::uint64_t held = static_cast<std::uint64_t>(status.st_blocks) * 512;
    return held >= size || room.f_bavail * room.f_frsize >= size - held;
}

Result<void> examine_for_open(const std::string& path, const std::string& layout, bool to_write) {
    if (is_poolset(path)) {
        auto part = examine_poolset(path);
        if (!part) return std::unexpected(part.error());
        if (std::filesystem::is_directory(*part)) return {};
        return examine_pool_part(*part, layout, false, to_write);
    }
    return examine_pool_part(path, layout, true, to_write);
}

Result<void> examine_for_create(const std::string& path, std::uint64_t size_bytes) {
    struct stat status{};
    if (lstat(path.c_str(), &status) == 0) {
        if (S_ISCHR(status.st_mode)) return {};
        if (S_ISREG(status.st_mode) && is_poolset(path)) {
            if (size_bytes != 0)
                return fail(
                    ErrorCode::invalid_argument,
                    fmt::format("{}: a poolset has its own sizes; leave the size out", path));
            auto part = examine_poolset(path);
            if (!part) return std::unexpected(part.error());
            return {};
        }
        return fail(ErrorCode::already_exists,
                    fmt::format("{}: exists already; open it, or choose another name", path));
    }
    if (size_bytes < PMEMOBJ_MIN_POOL)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: a pool needs at least {} MiB, and {} bytes were asked for",
                                path, PMEMOBJ_MIN_POOL >> 20, size_bytes));
    std::filesystem::path folder = std::filesystem::path(path).parent_path();
    if (folder.empty()) folder = ".";
    struct statvfs file_system{};
    if (statvfs(folder.c_str(), &file_system) != 0)
        return fail(
            errno == ENOENT ? ErrorCode::not_found : ErrorCode::io,
            fmt::format("{}: {}; make the folder first", folder.string(), std::strerror(errno)));
    const std::uint64_t available =
        static_cast<std::uint64_t>(file_system.f_bavail) * file_system.f_frsize;
    if (available < size_bytes)
        return fail(ErrorCode::no_space,
                    fmt::format("{}: {} MiB asked for, and the file system has {} MiB left", path,
                                size_bytes >> 20, available >> 20));
    return {};
}

Result<void> fill_holes(const std::string& path) {
    struct stat status{};
    constexpr off_t kBlock = 512;  // of st_blocks, always
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_blocks * kBlock >= status.st_size || is_poolset(path))
        return {};
    const Descriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
    const int refused =
        file.number() < 0 ? errno : posix_fallocate(file.number(), 0, status.st_size);
    if (refused == 0) return {};
    return fail(code_of(refused),
                fmt::format("{}: the file has holes, and to fill them the system says: {}; make "
                            "room on the file system, nothing was changed",
                            path, std::strerror(refused)));
}

bool grows_on_demand(const std::string& path) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) || !is_poolset(path))
        return false;
    const auto part = examine_poolset(path);
    return part && std::filesystem::is_directory(*part);
}

std::string peek_root(const std::string& path, std::size_t size_bytes) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
    const std::string start = read_start(path, kStartSize);
    if (start.size() != kStartSize || word_at(start, kRootOffsetAt) == 0) return {};
    std::string bytes(size_bytes, '\0');
    std::ifstream file(path, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(word_at(start, kRootOffsetAt)));
    file.read(bytes.data(), static_cast<std::streamsize>(size_bytes));
    return file ? bytes : std::string();
}

}  // namespace holdfast::pool
