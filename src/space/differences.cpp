#include "space/differences.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <shared_mutex>

#include "memory/reader_section.hpp"
#include "space/annotations.hpp"
#include "table/visit.hpp"

namespace holdfast::space {

using table::Entry;
using table::PageRange;
using table::TablePosition;

namespace {

// What a space has in files, in ascending order: the entries of pages that are not loaded say
// nothing about it.
class FileRanges {
  public:
    static Result<FileRanges> of(const memory::PhysicalMemory& memory,
                                 const detail::SpaceState& space) {
        FileRanges ranges;
        for (const detail::SpaceState* each :
             {&space, static_cast<const detail::SpaceState*>(space.supervisor.get())}) {
            if (each == nullptr) continue;
            const std::shared_lock lock(each->names);
            auto all =
                Annotations(memory.pool(), each->annotations).in(table::all_pages(each->levels));
            if (!all) return std::unexpected(all.error());
            std::erase_if(*all, [](const format::Annotation& annotation) {
                return annotation.backing == format::Backing::none;
            });
            // Of the space the lower half, of the object the upper one.
            std::ranges::move(*all, std::back_inserter(ranges.all_));
        }
        return ranges;
    }

    struct Place {
        std::uint64_t file = 0;  // 0: in none
        std::uint64_t page = 0;  // in the file
        std::uint64_t end = 0;   // so far it goes on
    };
    Place at(std::uint64_t page) const {
        const auto next = std::ranges::upper_bound(all_, page, {}, &format::Annotation::first_page);
        if (next != all_.begin() && std::prev(next)->end_page() > page) {
            const format::Annotation& range = *std::prev(next);
            return {range.file, range.file_page(page), range.end_page()};
        }
        return {.end = next != all_.end() ? next->first_page : ~std::uint64_t{0}};
    }

  private:
    std::vector<format::Annotation> all_;
};

class Comparison {
  public:
    Comparison(const memory::PhysicalMemory& memory, Levels levels, FileRanges first,
               FileRanges second)
        : memory_(memory),
          levels_(levels),
          first_files_(std::move(first)),
          second_files_(std::move(second)) {}

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
            const std::uint64_t pages = table::entry_pages(level);
            const std::uint64_t begin = (index * format::kEntriesPerTable + slot) * pages;
            if (is_same(a, b)) {
                if (is_unloaded(a)) compare_files({begin, begin + pages});
            } else if (a.is_table || b.is_table) {
                compare_tables(a, b);
            } else {
                compare_pages({begin, begin + pages}, a, b);
            }
        }
    }

    static bool is_unloaded(const Side& side) {
        return !side.is_table && !side.entry.is_empty() && !side.entry.has_frame() &&
               side.entry.absent_kind() == format::AbsentKind::file_backed;
    }
    // Pages that neither has loaded: of the same place in the same file they are the same, whoever
    // shares them.
    void compare_files(PageRange pages) {
        for (std::uint64_t page = pages.begin; page < pages.end;) {
            const FileRanges::Place a = first_files_.at(page), b = second_files_.at(page);
            const std::uint64_t end = std::min({pages.end, a.end, b.end});
            if (a.file == 0 || a.file != b.file || a.page != b.page)
                add(Difference::Kind::content, {page, end});
            page = end;
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
        // Asked of a huge frame's first: only that one has the mark of what this process has
        // filled.
        const FrameNumber frame = memory_.current(side.entry.frame());
        if (memory_.out_of_reach(frame)) return std::nullopt;
        const std::byte* const host = memory_.host(frame + offset);
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
    const FileRanges first_files_, second_files_;
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
    auto first_files = FileRanges::of(memory, first);
    if (!first_files) return std::unexpected(first_files.error());
    auto second_files = FileRanges::of(memory, second);
    if (!second_files) return std::unexpected(second_files.error());
    const memory::ReaderSection section;
    const table::Root a = first.root(), b = second.root();
    for (const auto& [root, space] : {std::pair{a, &first}, {b, &second}})
        if (root.entry.is_empty())
            return fail(ErrorCode::stale, fmt::format("space \"{}\" was removed", space->name()));
    return Comparison(memory, first.levels, std::move(*first_files), std::move(*second_files))
        .run(a, b);
}

}  // namespace holdfast::space
