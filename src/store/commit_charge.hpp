// The commit charge of a store (include/holdfast/overcommit.hpp): the policy, and under `never` how
// many pages each space is charged for.
//
// The counters are volatile. They are what the medium held at some moment at which nobody was
// inside the gate (`count`), and the changes of all commits since, which are told from inside the
// gate. A transaction that began under another policy does not know what it changes; its commit
// makes the counters forgotten, and the next who needs them counts anew. So the policy may change
// at any time.
//
// What a transaction may add is reserved before, so that two cannot both have the last page; what
// it takes away counts from its commit on.
//
// Thread safety: all functions. None that may count must be called from inside the gate.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <unordered_map>

#include "holdfast/overcommit.hpp"

namespace holdfast::detail {

class StoreState;

class CommitCharge {
  public:
    explicit CommitCharge(const StoreState& store);

    Overcommit overcommit() const;
    // Durable on return; the caller is inside the gate and holds the commit lock.
    Result<void> set(const Overcommit& overcommit);

    std::uint64_t total_pages() const;  // all frames whose region is attached
    std::uint64_t limit_pages() const;
    std::uint64_t committed_pages();  // reservations included

    // Of one space as it is committed.
    std::uint64_t of_space(FrameNumber record);
    // no_space if the limit forbids it, and it is not to be had whatever the limit is.
    Result<void> reserve(std::uint64_t pages, bool whatever_the_limit = false);
    void give_back(std::uint64_t pages);

    struct Change {
        FrameNumber record;
        std::int64_t pages = 0;
        bool is_snapshot = false;  // whose pages count for nobody until they are rolled back to
        bool is_removed = false;
    };
    // Inside the gate, after the commit.
    void committed(std::span<const Change> changes, std::uint64_t reserved);
    void forget() {
        if (is_known_.load(std::memory_order_relaxed)) is_known_.store(false);
    }

    // What the medium holds. The caller has closed the gate.
    struct Count {
        std::unordered_map<std::uint64_t, std::uint64_t> spaces;  // by record
        std::uint64_t committed = 0;                              // of those that are no snapshots
    };
    Count count() const;

  private:
    // Holds the mutex, and the counters are known.
    std::unique_lock<std::mutex> known();

    const StoreState& store_;
    std::atomic<std::uint64_t> word_;  // as on the medium
    std::mutex mutex_;
    std::atomic<bool> is_known_ = false;
    Count count_;
    std::uint64_t reserved_ = 0;  // by transactions under way
};

}  // namespace holdfast::detail
