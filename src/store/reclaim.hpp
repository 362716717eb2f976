// What a store remembers of reclaiming frames, in volatile memory (holdfast/reclaim.hpp).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "holdfast/reclaim.hpp"
#include "holdfast/types.hpp"

namespace holdfast::detail {

class ReclaimState {
  public:
    struct OfSpace {
        std::atomic<std::uint64_t> hand = 0;  // of the clock: a page index
        std::atomic<std::uint64_t> evicted = 0, evicted_for_others = 0, evicted_clean = 0,
                                   swapped_in = 0;
        std::atomic<bool> is_adopted = false;  // what it had before is charged to it
    };
    // By the frame of the space's record.
    std::shared_ptr<OfSpace> of(FrameNumber record) {
        const std::scoped_lock lock(mutex_);
        auto& known = spaces_[record.value()];
        if (!known) known = std::make_shared<OfSpace>();
        return known;
    }
    void forget(FrameNumber record) {
        const std::scoped_lock lock(mutex_);
        spaces_.erase(record.value());
    }
    void add(OomEvent event) {
        const std::scoped_lock lock(mutex_);
        events_.push_back(std::move(event));
    }
    std::vector<OomEvent> events() const {
        const std::scoped_lock lock(mutex_);
        return events_;
    }

  private:
    mutable std::mutex mutex_;
    std::unordered_map<std::uint64_t, std::shared_ptr<OfSpace>> spaces_;
    std::vector<OomEvent> events_;
};

}  // namespace holdfast::detail
