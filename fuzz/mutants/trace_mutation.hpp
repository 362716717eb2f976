// Bugs planted in a trace: the program as it would have been if it had forgotten a flush, or fenced
// too late. What a program does to its memory does not depend on its flushes and fences, so that
// leaving one out of the trace is leaving it out of the program; the same holds for a store that
// nothing in the run reads again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/persistency.hpp"
#include "trace/trace.hpp"

namespace holdfast::crash {

struct TraceMutation {
    enum class Kind : std::uint8_t {
        drop_flush,  // a flush, or what a copy of libpmem's flushes by itself
        drop_fence,
        drop_store,
        shorten_flush,      // its last line is not flushed
        shift_flush,        // one line further than it should be
        delay_flush,        // behind the stores that follow its fence: flagged before flushed
        store_after_flush,  // the last store before it comes between flush and fence
        swap_stores,        // of two stores that follow each other to one line
        acknowledge_early,  // before the last fence
        drop_all_flushes,   // as for a platform that saves its caches
        cached_copy,        // a non-temporal copy becomes plain stores that nobody flushes
        duplicate_flush,    // redundant
    };
    Kind kind{};
    EventIndex event = 0;  // that it is about

    std::string to_string() const;  // "drop_flush@212"
};

const char* to_string(TraceMutation::Kind kind);
inline constexpr std::uint8_t kTraceMutationKinds = 12;

// Where that bug can be planted: events inside operations only.
std::vector<TraceMutation> places_for(const Trace& trace, TraceMutation::Kind kind);

// The trace of the program with the bug.
Trace mutated(const Trace& trace, const TraceMutation& mutation);

}  // namespace holdfast::crash
