#include "holdfast/tlb.hpp"

#include "space/space_state.hpp"

namespace holdfast {

Tlb::Tlb(Space space) : space_(std::move(space)), generation_word_(&space_.state().generation) {}

void Tlb::flush() { entries_.fill(Entry{}); }

std::expected<Translation, Fault> Tlb::miss(VirtAddr address) {
    ++misses_;
    // Read before the walk: if the space changes meanwhile, the new entry is already old.
    const std::uint64_t generation = generation_word_->load(std::memory_order_acquire);
    if (generation != generation_) {
        flush();
        generation_ = generation;
    }
    auto found = space_.translate(address);
    if (found) {
        const std::uint64_t page = address.bits() >> kPageShift;
        entries_[page % kEntries] = {.page = page,
                                     .frame_bits = found->physical.bits() & ~(kPageSize - 1),
                                     .page_size = found->page_size,
                                     .protection = found->protection};
    }
    return found;
}

}  // namespace holdfast
