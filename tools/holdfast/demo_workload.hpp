// The changes that the demo's writer makes to the imported space, and what must be there after
// each.
//
// Transaction k is decided by the seed and k alone: a few of 64 slots are unmapped and mapped anew,
// with other lengths, protections and names and with bytes that say k; and a page in this space and
// one in a second space get the number k. So whoever knows the seed knows, byte by byte, what
// stands in both spaces after transaction k, and a mix of two transactions equals neither.
#pragma once

#include <holdfast/space.hpp>
#include <holdfast/store.hpp>
#include <holdfast/transaction.hpp>

#include <array>
#include <cstdint>
#include <string>

namespace holdfast::tool::demo {

inline constexpr const char* kProgramSpace = "program";
inline constexpr const char* kLedgerSpace = "ledger";

class Workload {
  public:
    // The state after transaction 0: nothing is mapped in the slots.
    explicit Workload(std::uint64_t seed) : seed_(seed) {}

    // Below everything that Linux maps by itself; nothing imported lies here.
    static constexpr Range kArea = {VirtAddr(0x1000'0000'0000), std::uint64_t{128} << 20};
    // The page with the number of the last transaction, in the ledger.
    static constexpr VirtAddr kLedgerPage = VirtAddr(0x1000);

    std::uint64_t transaction() const { return transaction_; }

    // To the state after the next transaction, without touching a store.
    void advance();

    // The same, in the two spaces: not visible and not durable before the transaction's commit.
    Result<void> advance(Transaction& change, const Space& program, const Space& ledger);

    // Nothing if both spaces hold exactly this state, otherwise the first difference.
    Result<void> compare(const Space& program, const Space& ledger) const;

  private:
    static constexpr std::size_t kSlots = 64;
    static constexpr std::uint64_t kSlotPages = 256;

    struct Slot {
        std::uint64_t transaction = 0;  // that mapped it
        std::uint64_t pages = 0;        // 0: nothing is mapped
        Protection protection;
    };

    static Range slot_range(std::size_t slot, std::uint64_t pages);
    static Range counter_range();
    std::uint64_t word_of(std::uint64_t transaction, std::size_t place) const;

    std::uint64_t seed_;
    std::uint64_t transaction_ = 0;
    std::array<Slot, kSlots> slots_{};
};

// A number over all mappings outside the workload's area: ranges, protections, names and bytes.
Result<std::uint64_t> fingerprint(const Space& space);

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014): a well-mixed function of its argument.
constexpr std::uint64_t mix(std::uint64_t value) {
    value += 0x9e37'79b9'7f4a'7c15;
    value = (value ^ (value >> 30)) * 0xbf58'476d'1ce4'e5b9;
    value = (value ^ (value >> 27)) * 0x94d0'49bb'1331'11eb;
    return value ^ (value >> 31);
}

}  // namespace holdfast::tool::demo
