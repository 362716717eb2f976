// Where the file of a pool is mapped in this process, whoever maps it.
//
// The functions mmap, munmap and mprotect of a program that this is linked into (or preloaded to)
// pass through here, so that mappings of the watched file are known from their first moment: also
// those of the pool's creation. One file is watched at a time.
//
// Thread safety: watch and unwatch while no other thread maps; find from anywhere, also in a signal
// handler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::crash {

struct PoolMapping {
    std::byte* address = nullptr;
    std::uint64_t size_bytes = 0;
    std::uint64_t file_offset = 0;

    bool contains(const void* at) const {
        const auto* const byte = static_cast<const std::byte*>(at);
        return byte >= address && byte < address + size_bytes;
    }
    std::uint64_t offset_of(const void* at) const {
        return file_offset +
               static_cast<std::uint64_t>(static_cast<const std::byte*>(at) - address);
    }
};

class WatchedPool {
  public:
    // Called right after a writable shared mapping of the file was made.
    using Observer = void (*)(const PoolMapping& mapping);

    // The file may be made later.
    static Result<void> watch(const std::string& path, Observer observer);
    static void unwatch();
    // The mapping that holds the address, or nullptr.
    static const PoolMapping* find(const void* address);
    static std::span<const PoolMapping> all();
    static std::uint64_t largest_end();  // of the file's bytes ever mapped; 0 if it never was
};

// Where the aligned unit (a page, a word) begins that the address lies in.
inline std::byte* start_of(const void* address, std::size_t unit) {
    return static_cast<std::byte*>(const_cast<void*>(address)) -
           reinterpret_cast<std::uintptr_t>(address) % unit;
}

// The kernel's calls, past this and every other interposition.
void* raw_mmap(void* address, std::size_t size, int protection, int flags, int file, long offset);
int raw_munmap(void* address, std::size_t size);
int raw_mprotect(void* address, std::size_t size, int protection);

}  // namespace holdfast::crash
