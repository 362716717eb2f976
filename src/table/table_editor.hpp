// Changes to one tree of tables: map, unmap, protect, over ranges of pages, within an EditSession.
//
// The shape of a range operation. The range's edges lie in at most two existing tables of each
// level; their entries are changed one by one, as words of the write set. Everything between the
// edges is whole subtrees, and costs one entry each in a table that exists:
//   map      builds new subtrees aside and links them;
//   unmap    moves the entries of whole subtrees into a *gather* table, aside, at the same
//            positions, and leaves that to limbo;
//   protect  copies the tables of whole subtrees aside with the new protection, links the copies,
//            and leaves the old tables (a *shell*: their frames live on in the copies) to limbo.
// A table of which many entries change is itself replaced by a changed copy, for one entry above
// it. So the log and the fences of a commit depend on the edges, never on the length of the range.
//
// Errors leave the session with a part of the operation in it: the caller must abort it, except
// where a function says that it has changed nothing.
#pragma once

#include <functional>
#include <optional>

#include "table/edit_session.hpp"
#include "table/walk.hpp"

namespace holdfast::table {

// Page indexes (walk.hpp), [begin, end).
struct PageRange {
    std::uint64_t begin = 0, end = 0;
    std::uint64_t count() const { return end - begin; }
};

class TableEditor {
  public:
    TableEditor(EditSession& session, const Root& root) : session_(session), root_(root) {}

    // A range, and where editing it begins: the lowest table that spans all of it and is not itself
    // replaced by a copy. Good until the session's next change. So a call for one page descends
    // once.
    struct Place {
        PageRange range;
        FrameNumber table;
        TablePosition position;
    };
    // damaged if a table on the way fails its validation, here and below.
    Result<Place> place_of(PageRange range);

    // The first page of the range that is mapped (present or absent-but-mapped), or that is not.
    // Change nothing.
    Result<std::optional<std::uint64_t>> first_mapped(const Place& place);
    Result<std::optional<std::uint64_t>> first_hole(const Place& place);

    struct Found {
        Entry entry;  // empty if not mapped
        unsigned level = 0;
        FrameNumber table;
        unsigned slot = 0;
    };
    Result<Found> find(std::uint64_t page);

    // The range must be unmapped. Fresh zeroed frames; or the given ones, whose references are
    // raised, `frames[i % size]` for the i-th page; or none yet.
    Result<void> map(const Place& place, Protection protection, memory::Placement placement = {});
    Result<void> map_frames(const Place& place, Protection protection,
                            const std::vector<FrameNumber>& frames);
    Result<void> map_lazy(const Place& place, Protection protection);
    // Gives a frame of zeros to a demand-zero page.
    Result<void> populate(std::uint64_t page, memory::Placement placement = {});

    Result<void> unmap(PageRange range);
    // The range must be mapped without holes.
    Result<void> protect(const Place& place, Protection protection);

    // Up to this many pages are unmapped directly, without limbo.
    static constexpr std::uint64_t kFewPages = 16;

    // Up to this many entries of an existing table are changed word by word.
    static constexpr unsigned kFewEntries = 16;

  private:
    // What stands in the leaf entries of a new mapping.
    struct LeafSource {
        virtual Result<TakenFrame> next(std::uint64_t page) = 0;
        virtual ~LeafSource() = default;
    };
    struct FreshFrames;
    struct GivenFrames;

    // How many tables the two edges of a range may need beside its whole subtrees: copies of
    // tables, and gather tables.
    std::uint64_t edge_tables() const { return 2 * root_.top(); }
    TablePosition top() const { return {root_.top(), root_.owner, 0}; }
    // Where it is a copy of `old`, which was entered.
    void copied(FrameNumber old, FrameNumber copy);
    Result<void> enter(FrameNumber table, const TablePosition& position);
    bool is_edited_in_place(FrameNumber table, const TablePosition& position, PageRange part) const;
    Result<FrameNumber> editable(FrameNumber table, const TablePosition& position, unsigned slot,
                                 PageRange part);
    Result<void> reserve_for(const Place& place, std::uint64_t pages, memory::Placement placement);
    std::uint64_t missing_tables(FrameNumber table, const TablePosition& position,
                                 PageRange range) const;
    static std::uint64_t tables_for(const TablePosition& position, PageRange range);
    Result<void> map_in(FrameNumber table, const TablePosition& position, PageRange range,
                        Protection protection, LeafSource* source);
    Result<TakenFrame> split_absent(FrameNumber table, const TablePosition& position, unsigned slot,
                                    Entry entry);
    struct Unmapped {
        std::optional<TakenFrame> gather;  // a table with what the range held, for limbo
        bool emptied = false;              // whether entries of this very table went
    };
    Result<Unmapped> unmap_in(FrameNumber table, const TablePosition& position, PageRange range,
                              bool directly);
    bool is_all_empty(FrameNumber table, unsigned likely_used) const;
    std::uint64_t copied_tables(FrameNumber table, const TablePosition& position,
                                PageRange range) const;
    Result<std::optional<TakenFrame>> protect_in(FrameNumber table, const TablePosition& position,
                                                 PageRange range, Protection protection);
    Result<TakenFrame> copy_protected(FrameNumber table, const TablePosition& position,
                                      Protection protection);
    Result<Entry> reprotected(Entry entry, const TablePosition& position, unsigned slot,
                              Protection protection) const;
    template <typename Predicate>
    Result<std::optional<std::uint64_t>> first(FrameNumber table, const TablePosition& position,
                                               PageRange range, const Predicate& wanted);

    EditSession& session_;
    Root root_;
};

}  // namespace holdfast::table
