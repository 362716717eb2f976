// Cyclic redundancy checks of small fixed records, at compile time where the input is known.
//
// A CRC and not a hash, because of what it guarantees: every single flipped bit, every burst no
// longer than the CRC, and, with the polynomials chosen here, every two flipped bits in records
// of our sizes. Sources: Koopman & Chakravarty, DSN 2004, "Cyclic Redundancy Code (CRC) Polynomial
// Selection For Embedded Networks".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace holdfast::format {

// Most significant bit first, no reflection, no final XOR; `Width` of 8 to 32 bits.
template <unsigned Width, std::uint32_t Polynomial, std::uint32_t Initial>
class Crc {
  public:
    constexpr Crc& add_byte(std::uint8_t byte) {
        const std::uint8_t index = static_cast<std::uint8_t>((value_ >> (Width - 8)) ^ byte);
        value_ = ((value_ << 8) ^ kTable[index]) & kMask;
        return *this;
    }
    // The low `count` bytes of `word`, most significant first.
    constexpr Crc& add_bytes(std::uint64_t word, unsigned count) {
        for (unsigned i = count; i-- > 0;) add_byte(static_cast<std::uint8_t>(word >> (8 * i)));
        return *this;
    }
    Crc& add(std::span<const std::byte> bytes) {
        for (std::byte byte : bytes) add_byte(static_cast<std::uint8_t>(byte));
        return *this;
    }
    constexpr std::uint32_t value() const { return value_; }

  private:
    static constexpr std::uint32_t kMask =
        static_cast<std::uint32_t>((std::uint64_t{1} << Width) - 1);
    static constexpr std::array<std::uint32_t, 256> make_table() {
        std::array<std::uint32_t, 256> table{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t remainder = i << (Width - 8);
            for (int bit = 0; bit < 8; ++bit) {
                const bool carry = remainder >> (Width - 1) & 1;
                remainder = ((remainder << 1) ^ (carry ? Polynomial : 0)) & kMask;
            }
            table[i] = remainder;
        }
        return table;
    }
    static constexpr std::array<std::uint32_t, 256> kTable = make_table();

    std::uint32_t value_ = Initial & kMask;
};

// CRC-10/ATM: Hamming distance 4 up to 501 bits of input.
using Crc10 = Crc<10, 0x233, 0x3ff>;
// CRC-16/CCITT-FALSE: Hamming distance 4 up to 32,751 bits.
using Crc16 = Crc<16, 0x1021, 0xffff>;
// CRC-32/MPEG-2's polynomial, for records of up to a page.
using Crc32 = Crc<32, 0x04c11db7, 0xffffffff>;

}  // namespace holdfast::format
