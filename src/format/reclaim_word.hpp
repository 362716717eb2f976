// The reclaim policy as a word of the superblock: a checked word, whose value is
//   bits 0..7    frame policy: 0 global, 1 local
//   bits 8..15   OOM policy: 0 refuse, 1 release a victim
// The word 0 is that of a store for which none was ever set.
#pragma once

#include <cstdint>
#include <optional>

#include "format/checked_word.hpp"
#include "format/superblock.hpp"

namespace holdfast::format {

struct ReclaimWord {
    struct Setting {
        std::uint8_t frames = 0, oom = 0;

        friend bool operator==(const Setting&, const Setting&) = default;
    };

    static constexpr std::uint64_t encode(Setting setting) {
        return CheckedWord::encode(setting.frames | std::uint64_t{setting.oom} << 8,
                                   kSeedReclaimPolicy);
    }
    // Nothing if it is neither 0 nor what `encode` made.
    static constexpr std::optional<Setting> decode(std::uint64_t word) {
        if (word == 0) return Setting{};
        const auto value = CheckedWord::decode(word, kSeedReclaimPolicy);
        if (!value || (*value & 0xff) > 1 || *value >> 8 > 1) return std::nullopt;
        return Setting{static_cast<std::uint8_t>(*value & 0xff),
                       static_cast<std::uint8_t>(*value >> 8)};
    }
};

}  // namespace holdfast::format
