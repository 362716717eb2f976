// Which pages in frames still have their bytes in a swap region, too, though no entry says so: a
// page that was brought back and not written since need not be written there again. Linux's swap
// cache.
//
// When a page comes back, its slot (the frame in the swap region) is free on the medium, and
// whoever needs one may take it; as long as nobody has, its bytes are what they were. So this is
// knowledge of this process alone: nothing of it is on the medium, and after a restart every page
// is written.
//
// A page is dirty from its first write on, as D of its entry says: whoever sets D says so here,
// too, in the same reader section. (D alone could be lost: a writer may set it between the read and
// the store of an entry that takes R/W away.)
//
// Thread safety: all functions.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "holdfast/types.hpp"

namespace holdfast::memory {

class SwapCache {
  public:
    // The frame, of this generation, holds what the slot does.
    void remember(FrameNumber frame, std::uint16_t generation, FrameNumber slot) {
        const std::scoped_lock lock(mutex_);
        forget_locked(frame);
        forget_slot_locked(slot);
        copies_[frame.value()] = {slot, generation};
        frames_[slot.value()] = frame;
        is_empty_.store(false, std::memory_order_release);
    }
    // It does no more: it is written, or free.
    void forget(FrameNumber frame) {
        if (is_empty_.load(std::memory_order_acquire)) return;
        const std::scoped_lock lock(mutex_);
        forget_locked(frame);
    }
    // The slot is about to get other bytes.
    void forget_slot(FrameNumber slot) {
        if (is_empty_.load(std::memory_order_acquire)) return;
        const std::scoped_lock lock(mutex_);
        forget_slot_locked(slot);
    }
    std::optional<FrameNumber> slot_of(FrameNumber frame, std::uint16_t generation) const {
        if (is_empty_.load(std::memory_order_acquire)) return std::nullopt;
        const std::scoped_lock lock(mutex_);
        const auto found = copies_.find(frame.value());
        if (found == copies_.end() || found->second.generation != generation) return std::nullopt;
        return found->second.slot;
    }

  private:
    struct Copy {
        FrameNumber slot;
        std::uint16_t generation = 0;
    };
    void forget_locked(FrameNumber frame) {
        const auto found = copies_.find(frame.value());
        if (found == copies_.end()) return;
        frames_.erase(found->second.slot.value());
        copies_.erase(found);
    }
    void forget_slot_locked(FrameNumber slot) {
        const auto found = frames_.find(slot.value());
        if (found != frames_.end()) forget_locked(found->second);
    }

    std::atomic<bool> is_empty_ = true;  // nothing was ever remembered
    mutable std::mutex mutex_;
    std::unordered_map<std::uint64_t, Copy> copies_;         // by frame
    std::unordered_map<std::uint64_t, FrameNumber> frames_;  // by slot
};

}  // namespace holdfast::memory
