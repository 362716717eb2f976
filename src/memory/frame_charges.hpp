// For which space each data frame was taken, and how many each has: what quotas are about.
// Volatile; until it is turned on, by the first quota or swap region, nothing is counted.
//
// A frame is charged to the space whose call took it, until it is free again, whoever else has it
// by then. After a restart it is charged to the first space that is asked which pages it has.
//
// Thread safety: all functions.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "holdfast/types.hpp"

namespace holdfast::memory {

class FrameCharges {
  public:
    // A space, by the frame of its record.
    using Payer = FrameNumber;

    bool is_on() const { return on_.load(std::memory_order_acquire); }
    void turn_on() { on_.store(true, std::memory_order_release); }

    // `pages` from `frame` on, a huge frame's or one, are the payer's, instead of what they were.
    void charge(FrameNumber frame, std::uint64_t pages, Payer payer);
    // The same of a frame that nobody has paid for yet.
    void adopt(FrameNumber frame, std::uint64_t pages, Payer payer);
    // The frame is free.
    void release(FrameNumber frame);
    // In pages.
    std::uint64_t of(Payer payer) const;
    // What was the removed space's is nobody's.
    void forget(Payer payer);

  private:
    struct Charge {
        std::uint64_t pages = 0;
        Payer payer;
    };
    void release_locked(FrameNumber frame);

    std::atomic<bool> on_ = false;
    mutable std::mutex mutex_;
    std::unordered_map<std::uint64_t, Charge> charges_;      // by frame
    std::unordered_map<std::uint64_t, std::uint64_t> sums_;  // by payer
};

}  // namespace holdfast::memory
