#include "pool/foreign_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "pool/descriptor.hpp"

namespace holdfast::pool {
namespace {

Error system_error(const std::string& path, int error_number, const char* advice) {
    return {code_of(error_number),
            fmt::format("{}: {}; {}", path, std::strerror(error_number), advice)};
}

constexpr off_t kFirstPageBytes = 4096;

// The name in the folder is as durable as the file only when the folder is.
bool sync_folder_of(const std::string& path) {
    std::filesystem::path folder = std::filesystem::path(path).parent_path();
    if (folder.empty()) folder = ".";
    const Descriptor opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return opened.number() >= 0 && fsync(opened.number()) == 0;
}

bool is_device(const std::string& path) {
    struct stat status{};
    return stat(path.c_str(), &status) == 0 && S_ISCHR(status.st_mode);
}

}  // namespace

Result<std::unique_ptr<ForeignMemory>> ForeignMemory::create_file(const std::string& path,
                                                                  std::uint64_t size_bytes,
                                                                  std::uint32_t file_mode,
                                                                  bool sparse, bool emulate_pmem) {
    if (is_device(path)) return map(path, emulate_pmem);
    const auto give_up = [&](int error_number, const char* advice) {
        unlink(path.c_str());
        return std::unexpected(system_error(path, error_number, advice));
    };
    {
        const Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                                   static_cast<mode_t>(file_mode)));
        if (file.number() < 0)
            return std::unexpected(system_error(
                path, errno, "a region is made in a new file, in a folder that may be written"));
        const auto size = static_cast<off_t>(size_bytes);
        int refused = posix_fallocate(file.number(), 0, sparse ? kFirstPageBytes : size);
        if (refused == 0 && sparse && ftruncate(file.number(), size) != 0) refused = errno;
        if (refused != 0) return give_up(refused, "ask for less, or make room on the file system");
        if (fsync(file.number()) != 0 || !sync_folder_of(path))
            return give_up(errno, "see the system's log");
    }
    auto mapped = map(path, emulate_pmem);
    if (!mapped) unlink(path.c_str());
    return mapped;
}

namespace {

// Whether there is a file or device with something in it.
Result<std::uint64_t> size_of(const std::string& path, bool to_write) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0)
        return std::unexpected(system_error(path, errno, "bring it back, or replace the region"));
    if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode))
        return fail(ErrorCode::not_a_pool, fmt::format("{}: neither a file nor a device", path));
    if (S_ISREG(status.st_mode) && status.st_size == 0)
        return fail(ErrorCode::not_a_pool, fmt::format("{}: the file is empty", path));
    // The owner's write bit counts for root as well, as it does for a pool.
    if (to_write && ((status.st_mode & 0222) == 0 || access(path.c_str(), R_OK | W_OK) != 0))
        return fail(
            ErrorCode::permission_denied,
            fmt::format("{}: not writable; give write permission, or detach the region", path));
    return static_cast<std::uint64_t>(status.st_size);
}

}  // namespace

Result<std::unique_ptr<ForeignMemory>> ForeignMemory::open_file(const std::string& path,
                                                                bool emulate_pmem) {
    if (auto size = size_of(path, true); !size) return std::unexpected(size.error());
    return map(path, emulate_pmem);
}

Result<std::unique_ptr<ForeignMemory>> ForeignMemory::open_copy(const std::string& path) {
    const auto size = size_of(path, false);
    if (!size) return std::unexpected(size.error());
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    void* const data = file.number() < 0 ? MAP_FAILED
                                         : mmap(nullptr, *size, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_NORESERVE, file.number(), 0);
    if (data == MAP_FAILED)
        return std::unexpected(system_error(path, errno, "give permission to read it"));
    return std::unique_ptr<ForeignMemory>(
        new ForeignMemory(static_cast<std::byte*>(data), *size, Kind::own));
}

Result<std::unique_ptr<ForeignMemory>> ForeignMemory::map(const std::string& path,
                                                          bool emulate_pmem) {
    std::size_t size_bytes = 0;
    int is_pmem = 0;
    void* const data = pmem_map_file(path.c_str(), 0, 0, 0, &size_bytes, &is_pmem);
    if (data == nullptr) return std::unexpected(system_error(path, errno, pmem_errormsg()));
    return std::unique_ptr<ForeignMemory>(
        new ForeignMemory(static_cast<std::byte*>(data), size_bytes,
                          emulate_pmem || is_pmem != 0 ? Kind::pmem : Kind::file));
}

Result<std::unique_ptr<ForeignMemory>> ForeignMemory::anonymous(std::uint64_t size_bytes) {
    // Shared, so that a second mapping of it can be made.
    void* const data = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        return fail(ErrorCode::no_space,
                    fmt::format("no {} bytes of address space for a volatile region", size_bytes));
    return std::unique_ptr<ForeignMemory>(
        new ForeignMemory(static_cast<std::byte*>(data), size_bytes, Kind::own));
}

ForeignMemory::~ForeignMemory() {
    if (kind_ == Kind::own)
        munmap(data_, size_bytes_);
    else
        pmem_unmap(data_, size_bytes_);
}

void ForeignMemory::flush(const void* address, std::size_t size_bytes) const {
    if (kind_ == Kind::pmem)
        pmem_flush(address, size_bytes);
    else if (kind_ == Kind::file)
        pmem_msync(address, size_bytes);
}

void ForeignMemory::drain() const {
    if (kind_ == Kind::pmem) pmem_drain();  // msync waits by itself
}

void ForeignMemory::fill(void* destination, int byte, std::size_t size_bytes) const {
    if (kind_ == Kind::pmem) {
        pmem_memset(destination, byte, size_bytes, PMEM_F_MEM_NODRAIN);
        return;
    }
    std::memset(destination, byte, size_bytes);
    flush(destination, size_bytes);
}

void ForeignMemory::copy(void* destination, const void* source, std::size_t size_bytes) const {
    if (kind_ == Kind::pmem) {
        pmem_memcpy(destination, source, size_bytes, PMEM_F_MEM_NODRAIN);
        return;
    }
    std::memcpy(destination, source, size_bytes);
    flush(destination, size_bytes);
}

}  // namespace holdfast::pool
