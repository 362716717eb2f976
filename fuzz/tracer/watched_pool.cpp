#include "tracer/watched_pool.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace holdfast::crash {
namespace {

constexpr std::size_t kMaxMappings = 64;

bool watching = false;
std::array<char, 4096> watched_path;
bool found = false;  // the file exists, and these are its own
dev_t device;
ino_t inode;
WatchedPool::Observer observer = nullptr;
std::array<PoolMapping, kMaxMappings> mappings;
std::size_t mapping_count = 0;
std::uint64_t end_of_mapped = 0;

bool find_file() {
    struct stat status{};
    found = stat(watched_path.data(), &status) == 0;
    device = status.st_dev;
    inode = status.st_ino;
    return found;
}

bool is_watched(int file) {
    if (!found && !find_file()) return false;
    struct stat status{};
    return fstat(file, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

void* map(void* address, std::size_t size, int protection, int flags, int file, long offset) {
    void* const at = raw_mmap(address, size, protection, flags, file, offset);
    if (!watching || at == MAP_FAILED || file < 0) return at;
    const bool writes_through = (protection & PROT_WRITE) != 0 && (flags & MAP_TYPE) != MAP_PRIVATE;
    if (!writes_through || !is_watched(file)) return at;
    if (mapping_count == kMaxMappings) {
        // Stores through it would go unseen, so it must not be.
        raw_munmap(at, size);
        errno = ENOMEM;
        return MAP_FAILED;
    }
    PoolMapping& mapping = mappings[mapping_count++];
    mapping = {static_cast<std::byte*>(at), size, static_cast<std::uint64_t>(offset)};
    end_of_mapped = std::max(end_of_mapped, mapping.file_offset + size);
    if (observer != nullptr) observer(mapping);
    return at;
}

}  // namespace

void* raw_mmap(void* address, std::size_t size, int protection, int flags, int file, long offset) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    return reinterpret_cast<void*>(
        syscall(SYS_mmap, address, size, protection, flags, file, offset));
}
int raw_munmap(void* address, std::size_t size) {
    return static_cast<int>(syscall(SYS_munmap, address, size));
}
int raw_mprotect(void* address, std::size_t size, int protection) {
    return static_cast<int>(syscall(SYS_mprotect, address, size, protection));
}

Result<void> WatchedPool::watch(const std::string& path, Observer new_observer) {
    if (path.size() >= watched_path.size())
        return fail(ErrorCode::invalid_argument, fmt::format("{} is too long a path", path));
    std::strcpy(watched_path.data(), path.c_str());
    find_file();
    observer = new_observer;
    mapping_count = 0;
    end_of_mapped = 0;
    watching = true;
    return {};
}

void WatchedPool::unwatch() { watching = false; }

const PoolMapping* WatchedPool::find(const void* address) {
    if (!watching) return nullptr;
    for (std::size_t i = 0; i < mapping_count; ++i)
        if (mappings[i].contains(address)) return &mappings[i];
    return nullptr;
}

std::span<const PoolMapping> WatchedPool::all() { return {mappings.data(), mapping_count}; }

std::uint64_t WatchedPool::largest_end() { return end_of_mapped; }

}  // namespace holdfast::crash

// In the place of libc's. libc itself and the dynamic linker do not come through here. Weak, so
// that a program that does not trace may have another of its own in one of these places.
#define HOLDFAST_IN_PLACE_OF_LIBC __attribute__((visibility("default"), weak))

extern "C" {

HOLDFAST_IN_PLACE_OF_LIBC void* mmap(void* address, std::size_t size, int protection, int flags,
                                     int file, off_t offset) noexcept {
    return holdfast::crash::map(address, size, protection, flags, file, offset);
}

HOLDFAST_IN_PLACE_OF_LIBC void* mmap64(void* address, std::size_t size, int protection, int flags,
                                       int file, off64_t offset) noexcept {
    return holdfast::crash::map(address, size, protection, flags, file, offset);
}

HOLDFAST_IN_PLACE_OF_LIBC int munmap(void* address, std::size_t size) noexcept {
    using namespace holdfast::crash;
    if (watching) {
        const auto* const begin = static_cast<std::byte*>(address);
        for (std::size_t i = 0; i < mapping_count;) {
            const PoolMapping mapping = mappings[i];
            if (mapping.address < begin || mapping.address + mapping.size_bytes > begin + size) {
                ++i;
                continue;
            }
            mappings[i] = mappings[--mapping_count];
        }
    }
    return raw_munmap(address, size);
}

HOLDFAST_IN_PLACE_OF_LIBC int mprotect(void* address, std::size_t size, int protection) noexcept {
    using namespace holdfast::crash;
    // The protection of watched pages belongs to whoever watches them.
    if (WatchedPool::find(address) != nullptr) return 0;
    return raw_mprotect(address, size, protection);
}
}
