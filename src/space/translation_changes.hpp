// What commits take away from a space's translations, or change about them, for those who remember
// translations (mmu/tlb.cpp). A change is a range of pages; a translation that appears where there
// was none is no change.
//
// The protocol. A commit that changes translations calls `begin` before its first word can be seen
// by a reader, and `end` after its last one is. The *version* is even while no such commit is under
// way, and is half of it changes old. Whoever remembers translations as of an even version may use
// them while the version is the same: then no word of a change had been stored when it looked, and
// the answer is one that the walk could have given. Otherwise `since` says what to forget first.
//
// Thread safety: writers hold the space's writer lock; readers take no lock.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "holdfast/types.hpp"

namespace holdfast::space {

// The ranges that one commit changes. When there are too many, those so far become one that spans
// them.
class ChangedPages {
  public:
    static constexpr std::size_t kMax = 8;

    void add(std::uint64_t begin, std::uint64_t end) {
        if (count_ != 0 && ranges_[count_ - 1].end == begin) {
            ranges_[count_ - 1].end = end;
            return;
        }
        if (count_ == kMax) {
            for (const Pages& each : all()) {
                begin = std::min(begin, each.begin);
                end = std::max(end, each.end);
            }
            count_ = 0;
        }
        ranges_[count_++] = {begin, end};
    }
    void add_all(Levels levels) {
        add(0, std::uint64_t{1} << (virtual_address_bits(levels) - kPageShift));
    }
    bool empty() const { return count_ == 0; }

    struct Pages {
        std::uint64_t begin, end;  // page indexes, as walk.hpp has them
    };
    std::span<const Pages> all() const { return {ranges_.data(), count_}; }

  private:
    std::size_t count_ = 0;
    std::array<Pages, kMax> ranges_;
};

class TranslationChanges {
  public:
    using Pages = ChangedPages::Pages;
    // Whoever has not looked for so many changes, but for one commit's, forgets everything.
    static constexpr std::uint64_t kKept = 64;

    // A full barrier, so that also a store that bypasses the cache comes after it. If `end` never
    // follows, translations are not remembered any more, and all answers stay right.
    void begin() { version_.fetch_add(1, std::memory_order_seq_cst); }
    // Empty if the commit failed, and so changed nothing.
    void end(std::span<const Pages> changed) {
        const std::uint64_t number = version_.load(std::memory_order_relaxed) / 2;
        for (std::size_t i = 0; i < changed.size(); ++i) {
            Kept& kept = kept_[(number + i) % kKept];
            kept.begin.store(changed[i].begin, std::memory_order_release);
            kept.end.store(changed[i].end, std::memory_order_release);
        }
        version_.fetch_add(2 * changed.size() - 1, std::memory_order_seq_cst);
    }

    const std::atomic<std::uint64_t>& version() const { return version_; }

    // Calls `changed(Pages)` for every change after the even version `seen`, and returns the even
    // version that was reached: of before a commit that is under way. Nothing if the oldest of them
    // are not kept any more.
    template <typename Changed>
    std::optional<std::uint64_t> since(std::uint64_t seen, const Changed& changed) const {
        const std::uint64_t reached = version_.load(std::memory_order_acquire) & ~std::uint64_t{1};
        if ((reached - seen) / 2 > kKept) return std::nullopt;
        for (std::uint64_t number = seen / 2; number < reached / 2; ++number) {
            const Kept& kept = kept_[number % kKept];
            const Pages pages{kept.begin.load(std::memory_order_acquire),
                              kept.end.load(std::memory_order_acquire)};
            // A range that was read while it made room for another is noticed below.
            if (pages.begin < pages.end) changed(pages);
        }
        // A commit that is under way may be writing its own, up to kMax of them, over the oldest.
        // If one of those was read above, its `begin` is seen here.
        const std::uint64_t now = version_.load(std::memory_order_acquire) / 2;
        if (now + ChangedPages::kMax > seen / 2 + kKept) return std::nullopt;
        return reached;
    }

  private:
    struct Kept {
        std::atomic<std::uint64_t> begin = 0, end = 0;
    };
    std::atomic<std::uint64_t> version_ = 0;
    std::array<Kept, kKept> kept_;
};

}  // namespace holdfast::space
