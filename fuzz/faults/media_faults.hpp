// Damage between two runs: flipped bits, lost lines and misdirected frames in a store's own
// structures. Each is noticed (a call says so, or `verify` does) or harmless (nothing is
// different); a translation that succeeds with another answer than before is a violation, and so is
// a crash or a hang.
//
// Damage inside libpmemobj's own structures is libpmemobj's to notice; it is not planted here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "subjects/script.hpp"

namespace holdfast::crash {

struct MediaFault {
    enum class Kind : std::uint8_t {
        flip_bit,     // `bit` of the byte at `offset`
        zero_line,    // the 64 bytes at `offset`
        poison_line,  // the same, filled with ones
        copy_frame,   // the frame at `source` is written over the one at `offset`
        swap_frames,
    };
    Kind kind{};
    std::string structure;  // "superblock", "metadata of table_1", …
    std::uint64_t offset = 0, source = 0;
    unsigned bit = 0;
    std::string to_string() const;
};

struct FaultCounts {
    std::uint64_t tried = 0, noticed = 0, harmless = 0;
};

struct FaultOutcome {
    std::map<std::string, FaultCounts> by_structure;
    struct Violation {
        MediaFault fault;
        std::string text;
    };
    std::vector<Violation> violations;
    std::uint64_t states = 0;
    double seconds = 0;
};

struct FaultOptions {
    // Of each structure at most so many bits are flipped, chosen by the seed; 0: all.
    std::uint64_t bits_per_structure = 500;
    std::uint64_t seed = 1;
    double seconds_per_check = 10;
};

// Makes the store that the script describes, all of it, and damages it.
Result<FaultOutcome> run_media_faults(const Script& script, const FaultOptions& options);

}  // namespace holdfast::crash
