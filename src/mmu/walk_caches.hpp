// The caches of upper-level entries that processors have (SDM vol. 3A, 4.10.3), as a count of what
// they save: how many entries a walk reads.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "holdfast/replay.hpp"

namespace holdfast::mmu {

class WalkCaches {
  public:
    explicit WalkCaches(const WalkCacheSizes& sizes) : sizes_(sizes) {}

    // How many entries a walk for the address reads that ends at a leaf of `leaf_level`, in tables
    // of so many levels. What it reads above the leaf is cached.
    unsigned walk(VirtAddr address, Levels levels, unsigned leaf_level) {
        unsigned begin = static_cast<unsigned>(levels);  // the level of the first entry read
        for (unsigned level = leaf_level + 1; level <= static_cast<unsigned>(levels); ++level)
            if (find(level, address)) {
                begin = level - 1;
                break;
            }
        for (unsigned level = begin; level > leaf_level; --level) insert(level, address);
        return begin - leaf_level + 1;
    }

  private:
    // The entries of one level by the addresses that they span, the last used one last.
    std::vector<std::uint64_t>& of(unsigned level) { return caches_[level - 2]; }
    static std::uint64_t key_of(unsigned level, VirtAddr address) {
        return address.bits() >> (kPageShift + 9 * (level - 1));
    }
    bool find(unsigned level, VirtAddr address) {
        auto& cache = of(level);
        const auto found = std::find(cache.begin(), cache.end(), key_of(level, address));
        if (found == cache.end()) return false;
        std::rotate(found, found + 1, cache.end());
        return true;
    }
    void insert(unsigned level, VirtAddr address) {
        auto& cache = of(level);
        const std::uint32_t size = sizes_.entries[level - 2];
        if (size == 0) return;
        if (cache.size() == size) cache.erase(cache.begin());
        cache.push_back(key_of(level, address));
    }

    WalkCacheSizes sizes_;
    std::array<std::vector<std::uint64_t>, 4> caches_;
};

}  // namespace holdfast::mmu
