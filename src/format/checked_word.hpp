// 48 bits of value and a CRC-16 over them and a seed in one 8-byte word: updated by one store,
// which no crash can tear, and no flipped bit goes unnoticed. The seed binds a word to its place,
// so that one word copied over another is noticed as well.
#pragma once

#include <cstdint>
#include <optional>

#include "format/crc.hpp"

namespace holdfast::format {

struct CheckedWord {
    static constexpr std::uint64_t kValueMask = (std::uint64_t{1} << 48) - 1;

    static constexpr std::uint64_t encode(std::uint64_t value, std::uint32_t seed) {
        return (value & kValueMask) | std::uint64_t{check(value & kValueMask, seed)} << 48;
    }
    static constexpr std::optional<std::uint64_t> decode(std::uint64_t word, std::uint32_t seed) {
        const std::uint64_t value = word & kValueMask;
        if (word >> 48 != check(value, seed)) return std::nullopt;
        return value;
    }

  private:
    static constexpr std::uint32_t check(std::uint64_t value, std::uint32_t seed) {
        return Crc16().add_bytes(seed, 4).add_bytes(value, 6).value();
    }
};

}  // namespace holdfast::format
