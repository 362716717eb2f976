// One piece of damage to the medium, and which of them to try.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "judge/crash_image.hpp"

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

// Damages the image, until it is restored.
void plant(CrashImage& image, const MediaFault& fault);

// What can be damaged: all places of one name are one structure.
struct FaultPlace {
    std::string structure;
    std::uint64_t offset = 0, size_bytes = 0;
    bool is_frame = false;  // may be misdirected: written to the place of another frame
    // Of a frame, what it is of: an older version of a table, in limbo still, is of the same. It is
    // not written over the newer one. That would be a lost write and not a misdirected one, which
    // no entry can tell; only `verify` does.
    std::string what_of = {};
};

struct FaultChoice {
    // Of each structure at most so many bits are flipped, chosen by the seed; 0: all.
    std::uint64_t bits_per_structure = 500;
    std::uint64_t at_most = 0;  // altogether, a sample of what there is; 0: all
    std::uint64_t seed = 1;
};

std::vector<MediaFault> choose_faults(const std::vector<FaultPlace>& places,
                                      const FaultChoice& choice);

}  // namespace holdfast::crash
