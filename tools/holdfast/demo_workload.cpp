#include "demo_workload.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace holdfast::tool::demo {
namespace {

constexpr std::size_t kWordsPerPage = kPageSize / sizeof(std::uint64_t);
constexpr std::size_t kChangesPerTransaction = 4;
// What stands in the page that carries the transaction's number.
constexpr std::size_t kCounterPlace = 1000;

// Words that any two of (first word, position) tell apart.
std::vector<std::uint64_t> words_from(std::uint64_t first, std::uint64_t pages) {
    std::vector<std::uint64_t> words(pages * kWordsPerPage);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = first + i * 0x9e37'79b9'7f4a'7c15;
    return words;
}

std::string slot_name(std::uint64_t transaction) { return fmt::format("[batch {}]", transaction); }

// The word in front says which transaction it was, the others follow from the seed.
std::vector<std::uint64_t> counter_words(std::uint64_t transaction, std::uint64_t first) {
    std::vector<std::uint64_t> words = words_from(first, 1);
    words.front() = transaction;
    return words;
}

// Maps the range anew and fills it.
Result<void> replace(Transaction& change, const Space& space, Range range, Protection protection,
                     const std::string& name, std::span<const std::uint64_t> words) {
    if (auto done = change.map(space, range, protection, {.name = name}); !done) return done;
    return change.fill(space, range.start, std::as_bytes(words));
}

Result<void> expect_words(const Space& space, VirtAddr address,
                          std::span<const std::uint64_t> expected) {
    std::vector<std::uint64_t> found(expected.size());
    if (auto read = space.read(address, std::as_writable_bytes(std::span(found))); !read)
        return read;
    const auto [at, expected_at] = std::mismatch(found.begin(), found.end(), expected.begin());
    if (at == found.end()) return {};
    return fail(ErrorCode::damaged,
                fmt::format("{:#x} in space \"{}\" holds {:#018x}, and {:#018x} is due",
                            (address + static_cast<std::uint64_t>(at - found.begin()) * 8).bits(),
                            space.name(), *at, *expected_at));
}

bool overlaps(Range a, Range b) { return a.start < b.end() && b.start < a.end(); }

std::string describe(const Mapping& mapping) {
    return fmt::format("{:#x}-{:#x} {} {} {} bytes with frames", mapping.range.start.bits(),
                       mapping.range.end().bits(), mapping.protection.to_string(), mapping.name,
                       mapping.resident_bytes);
}

}  // namespace

Range Workload::slot_range(std::size_t slot, std::uint64_t pages) {
    return {kArea.start + slot * kSlotPages * kPageSize, pages * kPageSize};
}

// Behind the slots, in a page table of its own.
Range Workload::counter_range() { return {slot_range(kSlots, 0).start, kPageSize}; }

std::uint64_t Workload::word_of(std::uint64_t transaction, std::size_t place) const {
    return mix(mix(seed_ ^ transaction) + place);
}

void Workload::advance() {
    ++transaction_;
    for (std::size_t i = 0; i < kChangesPerTransaction; ++i) {
        const std::uint64_t choice = mix(word_of(transaction_, 2000 + i));
        Slot& slot = slots_[choice % kSlots];
        slot.transaction = transaction_;
        // One change in eight leaves the slot empty; most are short, and some are long enough to
        // take the way of range operations.
        const std::uint64_t length = choice >> 16;
        slot.pages = choice >> 61 == 0 ? 0 : 1 + length % (length >> 16 & 3 ? 8 : 64);
        slot.protection = choice >> 8 & 1 ? protection::rw : protection::r;
    }
}

Result<void> Workload::advance(Transaction& change, const Space& program, const Space& ledger) {
    advance();
    for (std::size_t i = 0; i < kSlots; ++i) {
        const Slot& slot = slots_[i];
        if (slot.transaction != transaction_) continue;
        if (auto done = change.unmap(program, slot_range(i, kSlotPages)); !done) return done;
        if (slot.pages == 0) continue;
        if (auto done =
                replace(change, program, slot_range(i, slot.pages), slot.protection,
                        slot_name(transaction_), words_from(word_of(transaction_, i), slot.pages));
            !done)
            return done;
    }
    const auto counter = counter_words(transaction_, word_of(transaction_, kCounterPlace));
    if (auto done = change.unmap(program, counter_range()); !done) return done;
    if (auto done = replace(change, program, counter_range(), protection::rw, "[counter]", counter);
        !done)
        return done;
    const Range ledger_range = {kLedgerPage, kPageSize};
    if (auto done = change.unmap(ledger, ledger_range); !done) return done;
    return replace(change, ledger, ledger_range, protection::rw, "[counter]", counter);
}

Result<void> Workload::compare(const Space& program, const Space& ledger) const {
    std::vector<Mapping> expected;
    const auto expect = [&](Range range, Protection protection, const std::string& name) {
        expected.push_back({.range = range,
                            .protection = protection,
                            .resident_bytes = range.size_bytes,
                            .name = name});
    };
    for (std::size_t i = 0; i < kSlots; ++i)
        if (slots_[i].pages != 0)
            expect(slot_range(i, slots_[i].pages), slots_[i].protection,
                   slot_name(slots_[i].transaction));
    if (transaction_ != 0) expect(counter_range(), protection::rw, "[counter]");

    auto found = program.maps();
    if (!found) return std::unexpected(found.error());
    std::erase_if(*found, [](const Mapping& mapping) { return !overlaps(mapping.range, kArea); });
    for (std::size_t i = 0; i < std::max(found->size(), expected.size()); ++i) {
        const std::string is = i < found->size() ? describe((*found)[i]) : "nothing";
        const std::string due = i < expected.size() ? describe(expected[i]) : "nothing";
        if (i >= found->size() || i >= expected.size() || (*found)[i] != expected[i])
            return fail(ErrorCode::damaged,
                        fmt::format("{} is mapped, and {} is due after transaction {}", is, due,
                                    transaction_));
    }

    for (std::size_t i = 0; i < kSlots; ++i)
        if (auto same =
                expect_words(program, slot_range(i, 0).start,
                             words_from(word_of(slots_[i].transaction, i), slots_[i].pages));
            !same)
            return same;
    if (transaction_ == 0) return {};
    const auto counter = counter_words(transaction_, word_of(transaction_, kCounterPlace));
    if (auto same = expect_words(program, counter_range().start, counter); !same) return same;
    return expect_words(ledger, kLedgerPage, counter);
}

Result<std::uint64_t> fingerprint(const Space& space) {
    std::uint64_t sum = 0;
    const auto add = [&](std::uint64_t word) { sum = mix(sum ^ word); };
    const auto mappings = space.maps();
    if (!mappings) return std::unexpected(mappings.error());
    std::vector<std::uint64_t> buffer(16 * kWordsPerPage);
    for (const Mapping& mapping : *mappings) {
        if (overlaps(mapping.range, Workload::kArea)) continue;
        add(mapping.range.start.bits());
        add(mapping.range.size_bytes);
        add(mapping.protection.mask());
        for (const char letter : mapping.name) add(static_cast<unsigned char>(letter));
        for (std::uint64_t at = 0; at < mapping.range.size_bytes;) {
            const auto piece = std::as_writable_bytes(std::span(buffer))
                                   .first(std::min<std::uint64_t>(buffer.size() * 8,
                                                                  mapping.range.size_bytes - at));
            if (auto copied = space.read(mapping.range.start + at, piece); !copied)
                return std::unexpected(copied.error());
            for (std::size_t i = 0; i < piece.size() / 8; ++i) add(buffer[i]);
            at += piece.size();
        }
    }
    return sum;
}

}  // namespace holdfast::tool::demo
