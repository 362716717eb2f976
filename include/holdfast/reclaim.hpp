// Reclaim: pages lose their frames when frames run short, and get them back when they are touched.
//
// A page's bytes move to a *swap region* (Store::add_swap_region), a file that nothing else uses; a
// page of zeros needs none, and one that was brought back and not written since (D of its entry is
// clear) has its bytes there already, as long as nobody else needed the place. Which page goes is
// decided by the clock: a page that was accessed since the hand last came by has its A cleared and
// is passed. Only pages of 4 KiB that no other space has, and that `map_shared` has not given to
// anybody, can go.
//
// Where pages are looked for is the *frame policy*:
//   global  when the pool has no frame left, in all spaces; quotas are not looked at
//   local   only in the space that wants a frame: when the pool has none left, or the space has as
//           many as its quota permits. So one space's pressure is never felt by another.
// A frame counts against the quota of the space whose call took it, for as long as it is in use,
// also when a fork has it by then. A space with a quota gets no huge pages on demand.
//
// If nothing can go, the *OOM policy* says whether the call is refused (no_space), or another space
// is removed for it: the one that has most memory of its own, and `Store::oom_events` tells.
//
// Policies, quotas and what is swapped are persistent; counters and the clock's hands are not.
// A crash while a page moves leaves it in one place or the other. A swap region is checked like any
// external region: if its file is missing or is another one, its pages fault as lost (region.hpp).
//
// Thread safety: as Store and Space. While a page is on its way out, its writers wait.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace holdfast {

enum class FramePolicy : std::uint8_t { global = 0, local = 1 };
enum class OomPolicy : std::uint8_t { refuse = 0, release_victim = 1 };

struct ReclaimPolicy {
    FramePolicy frames = FramePolicy::global;
    OomPolicy oom = OomPolicy::refuse;

    friend bool operator==(const ReclaimPolicy&, const ReclaimPolicy&) = default;
};
const char* to_string(FramePolicy policy);
const char* to_string(OomPolicy policy);

// Of one space.
struct FrameUse {
    std::optional<std::uint64_t> quota_bytes;
    std::uint64_t charged_bytes = 0;  // as the quota counts
    std::uint64_t swapped_bytes = 0;
    // Since the store was opened, in pages.
    std::uint64_t evicted = 0;             // lost their frames
    std::uint64_t evicted_for_others = 0;  // of these, because another space wanted frames
    std::uint64_t evicted_clean = 0;       // of these, with no need to write them again
    std::uint64_t swapped_in = 0;
};

// What was done because there was nothing left to evict.
struct OomEvent {
    std::string victim;       // the space that was removed
    std::string explanation;  // a sentence: its score, and those of the others
    std::uint64_t freed_bytes = 0;
};

}  // namespace holdfast
