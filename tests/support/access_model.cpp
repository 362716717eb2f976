#include "support/access_model.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <utility>

namespace holdfast::test {
namespace {

// splitmix64's mixing function: different addresses give different words.
std::uint64_t word_at(PhysAddr address, std::uint64_t seed) {
    std::uint64_t word = address.bits() + seed * 0x9e37'79b9'7f4a'7c15;
    word = (word ^ word >> 30) * 0xbf58'476d'1ce4'e5b9;
    word = (word ^ word >> 27) * 0x94d0'49bb'1331'11eb;
    return word ^ word >> 31;
}

std::uint64_t offset_in_frame(PhysAddr address) { return address.bits() & (kPageSize - 1); }

Protection needed_for(const Access& access) {
    const Protection kind = access.kind == AccessKind::read    ? protection::r
                            : access.kind == AccessKind::write ? protection::w
                                                               : protection::x;
    return access.privilege == Privilege::user ? kind | protection::u : kind;
}

Outcome page_fault_of(const Access& access, bool present) {
    return {.privilege = access.privilege,
            .vector = vector::kPageFault,
            .error_code = (present ? page_fault::kPresent : 0) |
                          (access.kind == AccessKind::write ? page_fault::kWrite : 0) |
                          (access.privilege == Privilege::user ? page_fault::kUser : 0) |
                          // Reported because EFER.NXE = 1 (SDM vol. 3A, 4.7).
                          (access.kind == AccessKind::execute ? page_fault::kFetch : 0),
            .fault_address = access.address};
}

Outcome expected_outcome(const Space& space, const Access& access, MemoryModel& memory) {
    const auto place = space.translate(access.address, needed_for(access));
    if (!place) {
        switch (place.error().kind) {
            case FaultKind::non_canonical:
                return {.privilege = access.privilege, .vector = vector::kGeneralProtection};
            case FaultKind::protection:
            case FaultKind::copy_on_write:  // a processor does not tell them apart
                return page_fault_of(access, true);
            case FaultKind::not_mapped:
            case FaultKind::demand_zero:
                return page_fault_of(access, false);
            default:
                stop_test(place.error().to_string());
        }
    }
    Outcome outcome{.privilege = access.privilege};
    switch (access.kind) {
        case AccessKind::read:
            outcome.value = memory.load(place->physical);
            break;
        case AccessKind::write:
            memory.store(place->physical, access.value);
            break;
        case AccessKind::execute:
            outcome.value = mark_of(memory.load(place->physical));
            break;
    }
    return outcome;
}

}  // namespace

void fill_page(Space space, VirtAddr page, std::uint64_t seed) {
    const auto place = space.translate(page);
    const auto frame = space.frame_bytes(page);
    if (!place || !frame) stop_test("a page without a frame cannot be filled");
    for (std::uint64_t offset = 0; offset < kPageSize; offset += kWordBytes) {
        std::uint64_t word = word_at(place->physical + offset, seed);
        if (offset >= kLandingOffset) word = landing(static_cast<std::uint32_t>(word));
        std::memcpy(frame->data() + offset, &word, sizeof(word));
    }
}

std::vector<VirtAddr> resident_pages(const Space& space, Range except) {
    std::vector<VirtAddr> pages;
    for (const Mapping& mapping : value_of(space.maps()))
        for (std::uint64_t i = 0; i < mapping.range.pages(); ++i) {
            const VirtAddr page = mapping.range.start + i * kPageSize;
            if (!except.contains(page) && space.translate(page)) pages.push_back(page);
        }
    return pages;
}

MemoryModel::MemoryModel(const Space& space, std::vector<VirtAddr> pages)
    : space_(space), pages_(std::move(pages)) {
    for (const VirtAddr page : pages_) {
        const auto place = space_.translate(page);
        if (!place) stop_test(place.error().to_string());
        must(space_.read(page, frames_[place->physical.frame()]));
    }
}

std::uint64_t MemoryModel::load(PhysAddr address) const {
    std::uint64_t word = 0;
    std::memcpy(&word, frames_.at(address.frame()).data() + offset_in_frame(address), sizeof(word));
    return word;
}

void MemoryModel::store(PhysAddr address, std::uint64_t word) {
    std::memcpy(frames_.at(address.frame()).data() + offset_in_frame(address), &word, sizeof(word));
}

void MemoryModel::expect_equal() const {
    for (const VirtAddr page : pages_) {
        const auto place = space_.translate(page);
        ASSERT_TRUE(place) << place.error().to_string();
        Frame bytes;
        must(space_.read(page, bytes));
        EXPECT_TRUE(bytes == frames_.at(place->physical.frame()))
            << fmt::format("the page at {:#x} holds other bytes than the model", page.bits());
    }
}

std::vector<Outcome> expected_outcomes(const Space& space, std::span<const Access> accesses,
                                       MemoryModel& memory) {
    std::vector<Outcome> outcomes;
    outcomes.reserve(accesses.size());
    for (const Access& access : accesses)
        outcomes.push_back(expected_outcome(space, access, memory));
    return outcomes;
}

std::vector<std::string> disagreements(std::span<const Access> accesses,
                                       std::span<const Outcome> expected,
                                       std::span<const Outcome> actual) {
    if (expected.size() != accesses.size() || actual.size() != accesses.size())
        stop_test("the lists of outcomes differ in length");
    std::vector<std::string> found;
    for (std::size_t i = 0; i < accesses.size(); ++i)
        if (expected[i] != actual[i])
            found.push_back(fmt::format("{}: expected \"{}\", but the processor says \"{}\"",
                                        accesses[i].to_string(), expected[i].to_string(),
                                        actual[i].to_string()));
    return found;
}

}  // namespace holdfast::test
