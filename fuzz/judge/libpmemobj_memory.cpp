#include "judge/libpmemobj_memory.hpp"

#include <libpmemobj.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "tracer/watched_pool.hpp"

namespace holdfast::crash {
namespace {

// Address space, of which only what is used becomes memory.
constexpr std::size_t kArenaBytes = std::size_t{1} << 32;
constexpr std::size_t kHeaderBytes = 16;  // in front of each block: its class
constexpr std::size_t kUnit = 16, kSmallBytes = 8192;
constexpr std::size_t kSmallClasses = kSmallBytes / kUnit + 1, kClasses = kSmallClasses + 64;

struct FreeBlock {
    FreeBlock* next;
};

std::mutex mutex;
std::byte* arena = nullptr;
std::byte* unused = nullptr;  // from here to the arena's end
std::array<FreeBlock*, kClasses> free_blocks{};

// Small blocks by units, others by powers of two.
std::size_t class_of(std::size_t size) {
    if (size <= kSmallBytes) return (std::max(size, kUnit) + kUnit - 1) / kUnit;
    return kSmallClasses + static_cast<std::size_t>(std::bit_width(size - 1));
}
std::size_t size_of(std::size_t block_class) {
    if (block_class < kSmallClasses) return block_class * kUnit;
    return std::size_t{1} << (block_class - kSmallClasses);
}

bool is_ours(const void* block) { return block >= arena && block < arena + kArenaBytes; }
std::size_t& class_at(void* block) {
    return *reinterpret_cast<std::size_t*>(static_cast<std::byte*>(block) - kHeaderBytes);
}

void* allocate(std::size_t size) {
    const std::size_t block_class = class_of(size);
    if (block_class >= kClasses) return nullptr;
    const std::scoped_lock lock(mutex);
    if (FreeBlock* const block = free_blocks[block_class]; block != nullptr) {
        free_blocks[block_class] = block->next;
        return block;
    }
    const std::size_t needed = kHeaderBytes + size_of(block_class);
    if (needed > static_cast<std::size_t>(arena + kArenaBytes - unused)) return nullptr;
    void* const block = unused + kHeaderBytes;
    unused += needed;
    class_at(block) = block_class;
    return block;
}

void release(void* block) {
    if (block == nullptr) return;
    if (!is_ours(block)) return std::free(block);
    const std::scoped_lock lock(mutex);
    auto* const freed = new (block) FreeBlock;
    FreeBlock*& first = free_blocks[class_at(block)];
    freed->next = first;
    first = freed;
}

void* reallocate(void* block, std::size_t size) {
    if (block == nullptr) return allocate(size);
    if (!is_ours(block)) return std::realloc(block, size);
    const std::size_t old_size = size_of(class_at(block));
    if (size <= old_size) return block;
    void* const larger = allocate(size);
    if (larger == nullptr) return nullptr;
    std::memcpy(larger, block, old_size);
    release(block);
    return larger;
}

char* duplicate(const char* text) {
    const std::size_t size = std::strlen(text) + 1;
    void* const copy = allocate(size);
    return copy == nullptr ? nullptr : static_cast<char*>(std::memcpy(copy, text, size));
}

}  // namespace

void give_libpmemobj_memory_of_its_own() {
    if (arena != nullptr) return;
    void* const at = raw_mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return;  // malloc does as well
    arena = unused = static_cast<std::byte*>(at);
    pmemobj_set_funcs(allocate, release, reallocate, duplicate);
}

}  // namespace holdfast::crash
