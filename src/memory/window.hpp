// A window: a physical range that is mapped as one piece, and what this process remembers of its
// frames. A pool in one file has one window, which covers all its regions; an external or a
// volatile region has one of its own. So the walk finds a frame's address by one compare and one
// addition, and the compare is predicted (LinkedTables).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "format/entry.hpp"
#include "holdfast/types.hpp"

namespace holdfast::memory {

// Which table frames were validated since the store was opened: a byte a frame, so that looking is
// one compare and setting one store; until then the number of walks through the table. Zero pages
// that the kernel provides on first use: opening costs the same for any size.
using ValidatedMark = std::atomic<std::uint8_t>;
inline constexpr std::uint8_t kValidated = 0x80;
struct MarksUnmap {
    std::size_t size_bytes = 0;
    void operator()(ValidatedMark* marks) const;
};

// A physical range that is mapped in one piece, and which of its table frames were validated since
// the store was opened.
class Window {
  public:
    Window() = default;  // contains nothing
    // `first_mark` to `first_mark + mark_count` covers the window. Without memory for the marks it
    // contains nothing.
    Window(FrameNumber first, std::uint64_t count, std::byte* host, FrameNumber first_mark,
           std::uint64_t mark_count);
    explicit operator bool() const { return count_ != 0; }

    bool contains(FrameNumber frame) const { return frame.value() - first_ < count_; }
    bool contains(FrameNumber first, std::uint64_t count) const {
        return contains(first) && count <= count_ - (first.value() - first_);
    }
    std::byte* host(FrameNumber frame) const {
        return host_ + ((frame.value() - first_) << kPageShift);
    }
    std::uint64_t* table(FrameNumber frame) const {
        return reinterpret_cast<std::uint64_t*>(host(frame));
    }
    bool is_validated(FrameNumber frame) const {
        return mark(frame).load(std::memory_order_acquire) >= kValidated;
    }
    void set_validated(FrameNumber frame, bool validated) const {
        mark(frame).store(validated ? kValidated : 0, std::memory_order_release);
    }
    // In the window of a volatile region, which has no tables, the mark says that the frame was
    // filled by this process.
    bool is_filled(FrameNumber frame) const { return is_validated(frame); }
    void set_filled(FrameNumber frame, bool filled) const { set_validated(frame, filled); }
    // Counts a walk through a table that was not validated, up to `enough`. Whether there were as
    // many before it.
    bool has_walked(FrameNumber frame, std::uint8_t enough) const {
        std::uint8_t walks = mark(frame).load(std::memory_order_relaxed);
        if (walks >= enough) return true;
        // It may fail beside another walk, whose count is then as good.
        mark(frame).compare_exchange_strong(walks, walks + 1, std::memory_order_relaxed);
        return false;
    }

  private:
    friend class LinkedTables;
    ValidatedMark& mark(FrameNumber frame) const { return marks_[frame.value() - first_mark_]; }

    std::uint64_t first_ = 0;
    std::uint64_t count_ = 0;
    std::byte* host_ = nullptr;
    std::uint64_t first_mark_ = 0;  // the frame that the first mark stands for
    std::unique_ptr<ValidatedMark[], MarksUnmap> marks_;
};

// The first window, in the five words that a walk keeps in registers. Its physical range is seen as
// part of an aligned one of 2^n bytes, which has marks for all its frames. So one masked compare
// says that an entry is present, no leaf, permits everything (but for writing to what is shared),
// and points into the aligned range; and one mark, that its target lies in the window, too, and was
// validated.
class LinkedTables {
  public:
    LinkedTables() = default;  // no entry fits
    // The window's marks must cover the aligned range of `frames` frames, a power of two.
    LinkedTables(const Window& window, std::uint64_t frames)
        : offset_mask_((frames - 1) << kPageShift),
          mask_((format::Entry::kFrameMask & ~offset_mask_) | kPlain | format::Entry::kLargePage |
                format::Entry::kNoExecute),
          expected_((window.first_mark_ << kPageShift) | kPlain),
          // A number until an entry's offset leads into the window: it may lie outside of it.
          // NOLINTNEXTLINE(performance-no-int-to-ptr)
          host_(reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(window.host_) -
                                             ((window.first_ - window.first_mark_) << kPageShift))),
          marks_(window.marks_.get()) {}

    // Field by field: a copy stays in registers, which a copy of the bytes would not.
    LinkedTables(const LinkedTables& other)
        : offset_mask_(other.offset_mask_),
          mask_(other.mask_),
          expected_(other.expected_),
          host_(other.host_),
          marks_(other.marks_) {}
    LinkedTables& operator=(const LinkedTables&) = default;

    // Whether `entry` is such an ordinary link, and the table was validated. Any other entry, well
    // or not, is for the walk's other half.
    bool fits(format::Entry entry) const {
        return fits_unvalidated(entry) &&
               marks_[offset(entry) >> kPageShift].load(std::memory_order_acquire) >= kValidated;
    }
    // The same, whatever the mark says: for measuring what it costs.
    bool fits_unvalidated(format::Entry entry) const {
        return ((entry.bits() ^ expected_) & mask_) == 0;
    }
    // The table that an entry which fits links to.
    const std::uint64_t* table(format::Entry entry) const {
        return reinterpret_cast<const std::uint64_t*>(host_ + offset(entry));
    }

  private:
    static constexpr std::uint64_t kPlain = format::Entry::kPresent | format::Entry::kUser;
    // The range is aligned: what an entry that fits does not share with it is its place therein.
    std::uint64_t offset(format::Entry entry) const {
        return (entry.bits() ^ expected_) & offset_mask_;
    }

    static constexpr ValidatedMark kNotValidated{0};

    std::uint64_t offset_mask_ = 0;
    std::uint64_t mask_ = 0;
    std::uint64_t expected_ = 0;
    std::byte* host_ = nullptr;  // where the aligned range would begin
    const ValidatedMark* marks_ = &kNotValidated;
};

}  // namespace holdfast::memory
