// What leads to each frame, counted: the volatile side of a survey.
//
// Thread safety: `add` from any thread; the counts are final when those that add have ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory/physical_memory.hpp"

namespace holdfast::recovery {

class FrameUses {
  public:
    enum class From : std::uint8_t { space, limbo };

    explicit FrameUses(const memory::PhysicalMemory& memory) : memory_(memory) {
        for (const memory::Region& region : memory.regions())
            regions_.push_back({region.base(), region.frame_count(),
                                std::make_unique<Word[]>(region.frame_count())});
    }

    // One more entry leads to the frame; true if it is the first.
    bool add(FrameNumber frame, From from) {
        Word* const word = find(frame);
        if (word == nullptr) return false;
        const std::uint64_t one = from == From::space ? 1 : kOneFromLimbo;
        return (word->fetch_add(one, std::memory_order_relaxed) & ~kBuilding) == 0;
    }
    void set_building(FrameNumber frame) {
        if (Word* const word = find(frame)) word->fetch_or(kBuilding, std::memory_order_relaxed);
    }

    struct Use {
        std::uint64_t from_spaces = 0, from_limbo = 0;
        bool building = false;
        std::uint64_t references() const { return from_spaces + from_limbo; }
    };
    Use of(std::size_t region, std::uint64_t frame_in_region) const {
        const std::uint64_t word =
            regions_[region].words[frame_in_region].load(std::memory_order_relaxed);
        return {word & (kOneFromLimbo - 1), (word & ~kBuilding) / kOneFromLimbo,
                (word & kBuilding) != 0};
    }

    // Of a frame that a region holds.
    Use of(FrameNumber frame) const {
        for (std::size_t i = 0; i < regions_.size(); ++i)
            if (frame.value() - regions_[i].base.value() < regions_[i].count)
                return of(i, frame - regions_[i].base);
        return {};
    }

  private:
    using Word = std::atomic<std::uint64_t>;
    static constexpr std::uint64_t kOneFromLimbo = std::uint64_t{1} << 32,
                                   kBuilding = std::uint64_t{1} << 63;
    struct RegionUses {
        FrameNumber base;
        std::uint64_t count = 0;
        std::unique_ptr<Word[]> words;
    };

    Word* find(FrameNumber frame) {
        frame = memory_.current(frame);
        for (RegionUses& region : regions_)
            if (frame.value() - region.base.value() < region.count)
                return &region.words[frame - region.base];
        return nullptr;
    }

    const memory::PhysicalMemory& memory_;
    std::vector<RegionUses> regions_;
};

}  // namespace holdfast::recovery
