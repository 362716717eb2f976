// Damage between two runs: flipped bits, lost lines and misdirected frames in a store's own
// structures, in a store at rest and in what a crash in the middle of a call has left. Each is
// noticed (a call says so, or `verify` does) or harmless (nothing is different); a translation that
// succeeds with another answer than without the damage is a violation, and so is a crash or a hang.
//
// Damage inside libpmemobj's own structures is libpmemobj's to notice: it is planted in a process
// that may end, and counted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "faults/media_fault.hpp"
#include "holdfast/error.hpp"
#include "subjects/script.hpp"

namespace holdfast::crash {

struct FaultCounts {
    std::uint64_t tried = 0, noticed = 0, harmless = 0;
    std::uint64_t wrong = 0, killed = 0, hung = 0;
};
using CountsByStructure = std::map<std::string, FaultCounts>;

struct FaultOutcome {
    CountsByStructure at_rest, crashed;
    CountsByStructure libpmemobj;                             // of both
    std::uint64_t crash_states = 0, crash_states_before = 0;  // the call in flight; the rest: after
    struct Violation {
        MediaFault fault;
        std::string where;  // "at rest", "window 12, nothing lost"
        std::string text;
    };
    std::vector<Violation> violations;
    std::uint64_t faults = 0;
    double seconds = 0;
};

struct FaultOptions {
    bool at_rest = true;  // damage the store after all of the workload, too
    // Of each structure of a store at rest at most so many bits are flipped, chosen by the seed; 0:
    // all.
    std::uint64_t bits_per_structure = 500;
    // So many of the states in which a crash may leave the workload's calls, spread over them: of
    // each window the extremes and a random one. In each so many faults.
    std::uint64_t crash_states = 12;
    std::uint64_t faults_per_crash_state = 100;
    // In libpmemobj's structures, of a pool at rest and of each crash state.
    std::uint64_t libpmemobj_faults = 40;
    std::uint64_t seed = 1;
    double seconds_per_check = 10;
};

// Makes the store that the script describes, all of it, and damages it; then crashes the script's
// operations, and damages what that leaves.
Result<FaultOutcome> run_media_faults(const Script& script, const FaultOptions& options);

}  // namespace holdfast::crash
