// The overcommit policy as a word of the superblock: a checked word, whose value is
//   bits  0..7   policy, numbered as Linux numbers them
//   bits  8..39  ratio, in percent
// The word 0 is that of a store for which none was ever set.
#pragma once

#include <cstdint>
#include <optional>

#include "format/checked_word.hpp"

namespace holdfast::format {

inline constexpr std::uint32_t kSeedOvercommit = 0x6f766572;

enum class OvercommitOnMedium : std::uint8_t { heuristic = 0, always = 1, never = 2 };

struct OvercommitWord {
    struct Setting {
        OvercommitOnMedium policy = OvercommitOnMedium::always;
        std::uint32_t ratio_percent = 50;

        friend bool operator==(const Setting&, const Setting&) = default;
    };

    static constexpr std::uint64_t encode(Setting setting) {
        return CheckedWord::encode(
            static_cast<std::uint64_t>(setting.policy) | std::uint64_t{setting.ratio_percent} << 8,
            kSeedOvercommit);
    }
    // Nothing if it is neither 0 nor what `encode` made.
    static constexpr std::optional<Setting> decode(std::uint64_t word) {
        if (word == 0) return Setting{};
        const auto value = CheckedWord::decode(word, kSeedOvercommit);
        if (!value || (*value & 0xff) > 2 || *value >> 40 != 0) return std::nullopt;
        return Setting{static_cast<OvercommitOnMedium>(*value & 0xff),
                       static_cast<std::uint32_t>(*value >> 8)};
    }
};
inline constexpr OvercommitWord::Setting kNoOvercommit{};

}  // namespace holdfast::format
