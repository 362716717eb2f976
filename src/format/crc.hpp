// Cyclic redundancy checks of small fixed records, at compile time where the input is known.
//
// A CRC and not a hash, because of what it guarantees: every single flipped bit, every burst no
// longer than the CRC, and, with the polynomials chosen here, every two flipped bits in records
// of our sizes. Sources: Koopman & Chakravarty, DSN 2004, "Cyclic Redundancy Code (CRC) Polynomial
// Selection For Embedded Networks".
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace holdfast::format {

// Most significant bit first, no reflection, no final XOR; `Width` of 8 to 32 bits.
//
// Up to eight bytes are taken at once, with a table for each of them that says what the byte comes
// to with so many bytes behind it (Kounavis & Berry, ISCC 2005, "A Systematic Approach to Building
// High Performance Software-Based CRC Generators"). The look-ups do not wait for one another, as
// those of byte after byte do.
template <unsigned Width, std::uint32_t Polynomial, std::uint32_t Initial>
class Crc {
  public:
    constexpr Crc& add_byte(std::uint8_t byte) {
        const std::uint8_t index = static_cast<std::uint8_t>((value_ >> (Width - 8)) ^ byte);
        value_ = ((value_ << 8) ^ kTables[0][index]) & kMask;
        return *this;
    }
    // The low `count` bytes of `word`, most significant first; `count` is at most 8.
    constexpr Crc& add_bytes(std::uint64_t word, unsigned count) {
        if (8 * count < Width) {
            for (unsigned i = count; i-- > 0;) add_byte(static_cast<std::uint8_t>(word >> (8 * i)));
            return *this;
        }
        word ^= std::uint64_t{value_} << (8 * count - Width);
        value_ = 0;
#pragma GCC unroll 8
        for (unsigned i = 0; i < count; ++i)
            value_ ^= kTables[i][static_cast<std::uint8_t>(word >> (8 * i))];
        return *this;
    }
    Crc& add(std::span<const std::byte> bytes) {
        for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes.data(), 8);
            add_bytes(std::byteswap(word), 8);
        }
        for (std::byte byte : bytes) add_byte(static_cast<std::uint8_t>(byte));
        return *this;
    }
    constexpr std::uint32_t value() const { return value_; }

  private:
    using Remainder = std::conditional_t<(Width > 16), std::uint32_t, std::uint16_t>;
    using Tables = std::array<std::array<Remainder, 256>, 8>;

    static constexpr std::uint32_t kMask =
        static_cast<std::uint32_t>((std::uint64_t{1} << Width) - 1);
    // What a byte with `i` zero bytes behind it leaves.
    static constexpr Tables make_tables() {
        Tables tables{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::uint32_t remainder = byte << (Width - 8);
            for (auto& table : tables) {
                for (int bit = 0; bit < 8; ++bit) {
                    const bool carry = remainder >> (Width - 1) & 1;
                    remainder = ((remainder << 1) ^ (carry ? Polynomial : 0)) & kMask;
                }
                table[byte] = static_cast<Remainder>(remainder);
            }
        }
        return tables;
    }
    static constexpr Tables kTables = make_tables();

    std::uint32_t value_ = Initial & kMask;
};

// CRC-10/ATM: Hamming distance 4 up to 501 bits of input.
using Crc10 = Crc<10, 0x233, 0x3ff>;
// CRC-16/CCITT-FALSE: Hamming distance 4 up to 32,751 bits.
using Crc16 = Crc<16, 0x1021, 0xffff>;
// CRC-32/MPEG-2's polynomial, for records of up to a page.
using Crc32 = Crc<32, 0x04c11db7, 0xffffffff>;

}  // namespace holdfast::format
