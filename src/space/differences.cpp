#include "space/differences.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "memory/reader_section.hpp"
#include "table/visit.hpp"

namespace holdfast::space {

using table::Entry;
using table::PageRange;
using table::TablePosition;

namespace {

class Comparison {
  public:
    Comparison(const memory::PhysicalMemory& memory, Levels levels)
        : memory_(memory), levels_(levels) {}

    std::vector<Difference> run(const table::Root& first, const table::Root& second) {
        compare_tables(table_of(first), table_of(second));
        return std::move(found_);
    }

  private:
    // What a range of pages has in one of the spaces: a table, or one entry for all of it (which
    // then stands for each of its parts, too), or nothing.
    struct Side {
        Entry entry;
        TablePosition position;  // of the table that the entry leads to, if it is one
        bool is_table = false;
        bool is_damaged = false;
        unsigned entry_level = 0;  // where the entry stands
    };
    static Side table_of(const table::Root& root) {
        Side side;
        side.entry = root.entry;
        side.position = table::top_position(root);
        side.is_table = true;
        return side;
    }

    // One slot of a table, or the same part of a longer range.
    Side part_of(const Side& side, unsigned slot) const {
        if (!side.is_table) return side;
        Side part = side;
        const FrameNumber frame = memory_.current(side.entry.frame());
        const memory::Window* const window = memory_.window_of(frame);
        const unsigned level = side.position.level;
        part.entry = Entry(pool::load_word(window->table(frame) + slot));
        part.entry_level = level;
        part.is_damaged = false;
        if (!window->is_validated(frame))
            if (const auto kind = table::check_entry(memory_, part.entry, side.position, slot))
                part.is_damaged = !is_loss(*kind) || !part.entry.is_leaf(level);
        part.is_table = !part.is_damaged && part.entry.is_table(level);
        part.position = side.position.child(slot);
        return part;
    }

    // Two entries of equal bits, but for A, D and what sharing makes of R/W, lead to the same.
    static bool is_same(const Side& a, const Side& b) {
        if (a.is_table != b.is_table || a.is_damaged || b.is_damaged) return false;
        if (a.is_table) return a.entry.frame() == b.entry.frame();
        if (a.entry.is_empty() || b.entry.is_empty()) return a.entry == b.entry;
        if (a.entry.has_frame() != b.entry.has_frame() ||
            a.entry.mapped_protection() != b.entry.mapped_protection())
            return false;
        if (a.entry.has_frame())
            return a.entry.frame() == b.entry.frame() && a.entry_level == b.entry_level;
        return a.entry.absent_kind() == b.entry.absent_kind() &&
               a.entry.payload() == b.entry.payload();
    }

    void compare_tables(const Side& first, const Side& second) {
        const unsigned level = first.is_table ? first.position.level : second.position.level;
        const std::uint64_t index = first.is_table ? first.position.index : second.position.index;
        for (unsigned slot = 0; slot < format::kEntriesPerTable; ++slot) {
            const Side a = part_of(first, slot), b = part_of(second, slot);
            if (is_same(a, b)) continue;
            if (a.is_table || b.is_table) {
                compare_tables(a, b);
                continue;
            }
            const std::uint64_t pages = table::entry_pages(level);
            const std::uint64_t begin = (index * format::kEntriesPerTable + slot) * pages;
            compare_pages({begin, begin + pages}, a, b);
        }
    }

    static bool is_mapped(const Side& side) { return !side.entry.is_empty(); }

    void compare_pages(PageRange pages, const Side& a, const Side& b) {
        using Kind = Difference::Kind;
        if (is_mapped(a) && !is_mapped(b)) return add(Kind::only_in_first, pages);
        if (!is_mapped(a) && is_mapped(b)) return add(Kind::only_in_second, pages);
        if (a.is_damaged || b.is_damaged) return add(Kind::content, pages);
        if (a.entry.mapped_protection() != b.entry.mapped_protection())
            return add(Kind::protection, pages);
        for (std::uint64_t page = pages.begin; page < pages.end; ++page)
            if (content_differs(page, a, b)) add(Kind::content, {page, page + 1});
    }

    // Null for zeros; nothing if it cannot be read.
    std::optional<const std::byte*> bytes_of(std::uint64_t page, const Side& side) const {
        if (!side.entry.has_frame()) {
            if (side.entry.absent_kind() != format::AbsentKind::demand_zero) return std::nullopt;
            return nullptr;
        }
        const std::uint64_t offset = page % table::entry_pages(side.entry_level);
        const FrameNumber frame = memory_.current(side.entry.frame() + offset);
        if (memory_.out_of_reach(frame)) return std::nullopt;
        const std::byte* const host = memory_.host(frame);
        if (host == nullptr) return std::nullopt;
        return host;
    }

    bool content_differs(std::uint64_t page, const Side& a, const Side& b) const {
        static constexpr std::array<std::byte, kPageSize> kZeros{};
        const auto first = bytes_of(page, a), second = bytes_of(page, b);
        if (!first || !second) return true;
        if (*first == *second) return false;
        return std::memcmp(*first != nullptr ? *first : kZeros.data(),
                           *second != nullptr ? *second : kZeros.data(), kPageSize) != 0;
    }

    void add(Difference::Kind kind, PageRange pages) {
        const Range range{table::address_of_page(pages.begin, levels_), pages.count()
                                                                            << kPageShift};
        if (!found_.empty() && found_.back().kind == kind &&
            found_.back().range.end() == range.start)
            found_.back().range.size_bytes += range.size_bytes;
        else
            found_.push_back({kind, range});
    }

    const memory::PhysicalMemory& memory_;
    const Levels levels_;
    std::vector<Difference> found_;
};

}  // namespace

Result<std::vector<Difference>> differences(const memory::PhysicalMemory& memory,
                                            const detail::SpaceState& first,
                                            const detail::SpaceState& second) {
    if (first.levels != second.levels)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" has {} levels of tables and \"{}\" has {}: they have no "
                                "addresses in common",
                                first.name(), static_cast<int>(first.levels), second.name(),
                                static_cast<int>(second.levels)));
    const memory::ReaderSection section;
    const table::Root a = first.root(), b = second.root();
    for (const auto& [root, space] : {std::pair{a, &first}, {b, &second}})
        if (root.entry.is_empty())
            return fail(ErrorCode::stale, fmt::format("space \"{}\" was removed", space->name()));
    return Comparison(memory, first.levels).run(a, b);
}

}  // namespace holdfast::space
