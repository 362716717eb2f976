// What accesses to a space should do, going by `Space::translate` and `Space::read` alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "holdfast/space.hpp"
#include "support/access_prober.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {

// A page's bytes below this offset are data, those from it on are landings, 8 bytes each.
inline constexpr std::uint64_t kLandingOffset = 3 * kPageSize / 4;
inline constexpr std::uint64_t kWordBytes = 8;

// Gives each word of the page a value of its own, which depends on its physical address and on
// `seed`: a value that was read tells where it came from.
void fill_page(Space space, VirtAddr page, std::uint64_t seed);

// The mapped pages that have a frame, those in `except` left out.
std::vector<VirtAddr> resident_pages(const Space& space, Range except);

// A copy of the frames behind some pages of a space, to which the model's writes are applied.
class MemoryModel {
  public:
    MemoryModel(const Space& space, std::vector<VirtAddr> pages);

    std::uint64_t load(PhysAddr address) const;
    void store(PhysAddr address, std::uint64_t word);
    // Fails the test for each page that `read` now finds to hold other bytes than the model.
    void expect_equal() const;

  private:
    using Frame = std::array<std::byte, kPageSize>;

    Space space_;
    std::vector<VirtAddr> pages_;
    std::map<FrameNumber, Frame> frames_;
};

// Applies the accesses to the model in their order.
std::vector<Outcome> expected_outcomes(const Space& space, std::span<const Access> accesses,
                                       MemoryModel& memory);

// The accesses about which two lists of outcomes disagree, a sentence each.
std::vector<std::string> disagreements(std::span<const Access> accesses,
                                       std::span<const Outcome> expected,
                                       std::span<const Outcome> actual);

}  // namespace holdfast::test
