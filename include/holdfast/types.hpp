// The words of holdfast as types: addresses, frames, ranges, protections.
//
// Every type here is a plain value without invalid states: validity is checked once, by the named
// constructor, and the name says how it can fail. All are safe to copy between threads.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>

namespace holdfast {

inline constexpr std::uint64_t kPageShift = 12;
inline constexpr std::uint64_t kPageSize = std::uint64_t{1} << kPageShift;

// Binary sizes, so that call sites read `4_MiB`.
namespace literals {
constexpr std::uint64_t operator""_KiB(unsigned long long n) { return n << 10; }
constexpr std::uint64_t operator""_MiB(unsigned long long n) { return n << 20; }
constexpr std::uint64_t operator""_GiB(unsigned long long n) { return n << 30; }
}  // namespace literals

// How many levels of tables a space has: 3, 4 or 5, for 39, 48 or 57 bits of virtual address.
// 4 and 5 are what x86-64 processors walk (SDM vol. 3A, 4.5); 3 is the same format one level
// shorter, for small spaces that only software walks.
enum class Levels : std::uint8_t { three = 3, four = 4, five = 5 };

constexpr unsigned virtual_address_bits(Levels levels) {
    return 12 + 9 * static_cast<unsigned>(levels);
}

// A virtual address. Whether it is canonical depends on the space's number of levels.
class VirtAddr {
  public:
    constexpr VirtAddr() = default;
    // Keeps every bit: use it where a space checks the address anyway.
    constexpr explicit VirtAddr(std::uint64_t bits) : bits_(bits) {}

    // `bits` if all bits above the translated ones equal the highest translated bit
    // (SDM vol. 1, 3.3.7.1), otherwise nothing.
    static constexpr std::optional<VirtAddr> canonical(std::uint64_t bits, Levels levels) {
        const VirtAddr address = truncated(bits, levels);
        if (address.bits() != bits) return std::nullopt;
        return address;
    }
    // Sign-extends from the highest translated bit; cannot fail.
    static constexpr VirtAddr truncated(std::uint64_t bits, Levels levels) {
        const unsigned shift = 64 - virtual_address_bits(levels);
        return VirtAddr(
            static_cast<std::uint64_t>(static_cast<std::int64_t>(bits << shift) >> shift));
    }

    constexpr std::uint64_t bits() const { return bits_; }
    constexpr std::uint64_t page_offset() const { return bits_ & (kPageSize - 1); }
    constexpr VirtAddr page_floor() const { return VirtAddr(bits_ & ~(kPageSize - 1)); }
    constexpr bool is_page_aligned() const { return page_offset() == 0; }

    friend constexpr auto operator<=>(VirtAddr, VirtAddr) = default;
    friend constexpr VirtAddr operator+(VirtAddr a, std::uint64_t size_bytes) {
        return VirtAddr(a.bits_ + size_bytes);
    }
    friend constexpr std::uint64_t operator-(VirtAddr a, VirtAddr b) { return a.bits_ - b.bits_; }

  private:
    std::uint64_t bits_ = 0;
};

// A frame of 4 KiB in holdfast's own physical address space (not the machine's).
class FrameNumber {
  public:
    constexpr FrameNumber() = default;
    constexpr explicit FrameNumber(std::uint64_t value) : value_(value) {}
    constexpr std::uint64_t value() const { return value_; }

    friend constexpr auto operator<=>(FrameNumber, FrameNumber) = default;
    friend constexpr FrameNumber operator+(FrameNumber f, std::uint64_t count) {
        return FrameNumber(f.value_ + count);
    }
    friend constexpr std::uint64_t operator-(FrameNumber a, FrameNumber b) {
        return a.value_ - b.value_;
    }

  private:
    std::uint64_t value_ = 0;
};

// A byte in holdfast's own physical address space; at most 52 bits, as in an x86-64 entry.
class PhysAddr {
  public:
    constexpr PhysAddr() = default;
    constexpr explicit PhysAddr(std::uint64_t bits) : bits_(bits) {}
    static constexpr PhysAddr of(FrameNumber frame) {
        return PhysAddr(frame.value() << kPageShift);
    }
    constexpr std::uint64_t bits() const { return bits_; }
    constexpr FrameNumber frame() const { return FrameNumber(bits_ >> kPageShift); }

    friend constexpr auto operator<=>(PhysAddr, PhysAddr) = default;
    friend constexpr PhysAddr operator+(PhysAddr a, std::uint64_t size_bytes) {
        return PhysAddr(a.bits_ + size_bytes);
    }

  private:
    std::uint64_t bits_ = 0;
};

// The size of the page or frame that one leaf entry maps. The value is its log2.
enum class PageSize : std::uint8_t { size_4KiB = 12, size_2MiB = 21, size_1GiB = 30 };

constexpr std::uint64_t bytes(PageSize size) {
    return std::uint64_t{1} << static_cast<unsigned>(size);
}

// What an access needs, and what a mapping permits. As on x86, a present page is always readable:
// `read` stands for "present", and a protection without it maps nothing.
class Protection {
  public:
    static constexpr std::uint8_t kRead = 1, kWrite = 2, kExecute = 4, kUser = 8;

    constexpr Protection() = default;
    constexpr explicit Protection(std::uint8_t mask) : mask_(mask & 15) {}
    // Parses a subset of the letters "rwxu" in any order, "-" being ignored.
    static std::optional<Protection> parse(const std::string& letters);
    // "rwxu" with "-" for what is missing.
    std::string to_string() const;

    constexpr std::uint8_t mask() const { return mask_; }
    constexpr bool readable() const { return mask_ & kRead; }
    constexpr bool writable() const { return mask_ & kWrite; }
    constexpr bool executable() const { return mask_ & kExecute; }
    constexpr bool user() const { return mask_ & kUser; }
    // Whether everything in `needed` is permitted here.
    constexpr bool permits(Protection needed) const { return (needed.mask_ & ~mask_) == 0; }

    friend constexpr bool operator==(Protection, Protection) = default;
    friend constexpr Protection operator|(Protection a, Protection b) {
        return Protection(static_cast<std::uint8_t>(a.mask_ | b.mask_));
    }
    friend constexpr Protection operator&(Protection a, Protection b) {
        return Protection(static_cast<std::uint8_t>(a.mask_ & b.mask_));
    }

  private:
    std::uint8_t mask_ = 0;
};

namespace protection {
inline constexpr Protection r{Protection::kRead};
inline constexpr Protection w{Protection::kWrite};
inline constexpr Protection x{Protection::kExecute};
inline constexpr Protection u{Protection::kUser};
inline constexpr Protection rw = r | w;
inline constexpr Protection rx = r | x;
inline constexpr Protection rwx = r | w | x;
}  // namespace protection

// A range of virtual addresses, [start, start + size_bytes).
struct Range {
    VirtAddr start;
    std::uint64_t size_bytes = 0;

    constexpr VirtAddr end() const { return start + size_bytes; }
    constexpr std::uint64_t pages() const { return size_bytes >> kPageShift; }
    constexpr bool contains(VirtAddr address) const { return address - start < size_bytes; }
    friend constexpr bool operator==(const Range&, const Range&) = default;
};

}  // namespace holdfast
