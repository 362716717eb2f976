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
// Tables that a fork or a snapshot shares (a link with R/W = 0 leads to them) are never written:
// the path to what is to be changed is *unshared* first, table by table from the top. If the table
// is shared no more, it is taken over (EditSession::claim); otherwise it is copied, and everything
// it leads to has one reference more, and is shared itself from then on. The translation is the
// same before and after. In a table to which a path with R/W = 1 leads, an entry permits writing
// only to what has no other reference, or to a table for which this is true, too; in all others it
// may be out of date, since nobody writes by it, and is set right when the table is taken over.
//
// Leaves of 2 MiB and 1 GiB (huge_pages.cpp) have a frame that is huge as well. What is to become
// of a part of one makes it a table of 512 smaller ones first: in place, or, if forks or snapshots
// have it too, as a copy.
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
        std::uint64_t links = ~std::uint64_t{0};  // the AND of their bits
    };
    Result<Found> find(std::uint64_t page);

    // The range must be unmapped. Fresh zeroed frames, huge ones for leaves above level 1, of which
    // the range must be a multiple; or the given ones, whose references are raised, `frames[i %
    // size]` for the i-th page; or none yet.
    Result<void> map(const Place& place, Protection protection, memory::Placement placement = {},
                     unsigned leaf_level = 1);
    Result<void> map_frames(const Place& place, Protection protection,
                            const std::vector<FrameNumber>& frames);
    // Fixed frames of a device region that follow each other, by leaves of this level: as many as
    // `count` says, and then the same again.
    Result<void> map_device(const Place& place, Protection protection, FrameNumber first,
                            std::uint64_t count, unsigned leaf_level);
    Result<void> map_absent(const Place& place, format::AbsentKind kind, Protection protection,
                            std::uint64_t payload = 0);
    // Makes the stack whose room the page is in grow down to it (stack_growth.cpp): the pages that
    // it has got, none if the page is in no such room; or nothing, if it would come too near to
    // another mapping.
    Result<std::optional<PageRange>> grow_down(std::uint64_t page);
    // Gives a frame of zeros to a demand-zero page: of the size that its range wishes, or a smaller
    // one if there is none.
    Result<void> populate(std::uint64_t page, memory::Placement placement = {},
                          unsigned largest_level = format::kLeafLevelMax);
    // Gives the frame of zeros to a demand-zero page, for reading only, whatever its mapping
    // permits: the first write copies it. False if the page is something else, or part of a range
    // that wishes larger ones.
    Result<bool> populate_zero(std::uint64_t page, const TakenFrame& zero);
    // Gives a page that is absent in that way the frame that is then asked for, whose content is
    // ready, and which has one reference more for it. False if it is not so (any more); nobody is
    // asked then.
    Result<bool> fill_absent(std::uint64_t page, format::AbsentKind kind,
                             const std::function<Result<TakenFrame>()>& frame,
                             format::Sharing sharing = format::Sharing::exclusive);
    // Gives the page a frame of its own, with the same bytes, if forks or snapshots share the one
    // it has: it may then be written, if its mapping permits it.
    Result<void> unshare_page(std::uint64_t page, memory::Placement placement = {});
    // Unshares the tables of the range, at most about `tables` of them; whether any may be left.
    Result<bool> unshare_tables(PageRange range, std::uint64_t tables);
    // Maps the page by a leaf of 4 KiB if it is part of a huge one.
    Result<void> split_to_page(std::uint64_t page);
    // Of how many pages the next write to the page makes a copy.
    Result<std::uint64_t> pages_to_copy(std::uint64_t page);
    // What of the 2 MiB that begin at the page keeps them from being one leaf, or that they are
    // one; changes nothing.
    enum class Promotable : std::uint8_t { yes, is_huge, no };
    Result<Promotable> promotable(std::uint64_t first_page);
    // If they are promotable: nobody may write to them any more, but who was about to.
    Result<void> write_protect(std::uint64_t first_page);
    // Makes them one leaf, with a copy of the bytes; nobody writes to them any more.
    Result<void> promote(std::uint64_t first_page, const TakenFrame& huge);
    // The next pages that may lose their frames, by the clock from `hand` on: those whose A is
    // clear; it is cleared in those that are passed. Where the hand is then.
    struct Clock {
        std::vector<std::uint64_t> pages;
        std::uint64_t hand = 0;
    };
    Clock candidates(std::uint64_t hand, std::uint64_t count);
    // If it still may: nobody may write to the page any more, but who was about to.
    Result<void> write_protect_page(std::uint64_t page);
    // Moves the page's bytes to a frame of the swap region, if there is one; nobody writes to it
    // any more. Zeros need none. After no_space nothing is changed. Clean: it had its bytes there.
    enum class SwappedOut : std::uint8_t { yes, clean, no };
    Result<SwappedOut> swap_out(std::uint64_t page, std::optional<memory::Placement> swap);
    // The way back, if it is swapped.
    Result<void> swap_in(std::uint64_t page, memory::Placement placement = {});
    // A root table that shares everything below with this one.
    Result<TakenFrame> share_root();

    // How many of them count for the commit charge (charged_pages.hpp). Changes nothing.
    Result<std::uint64_t> charged_pages(PageRange range);

    Result<void> unmap(PageRange range);
    // The range must be mapped without holes.
    Result<void> protect(const Place& place, Protection protection);

    // Pages beside those that were asked for which have other frames now.
    const std::vector<PageRange>& moved() const { return moved_; }

    // Up to this many pages are unmapped directly, without limbo.
    static constexpr std::uint64_t kFewPages = 16;

    // Up to this many entries of an existing table are changed word by word.
    static constexpr unsigned kFewEntries = 16;

  private:
    // What stands in the leaf entries of a new mapping.
    struct LeafSource {
        explicit LeafSource(unsigned level_in = 1) : level(level_in) {}
        virtual Result<TakenFrame> next(std::uint64_t page) = 0;
        virtual ~LeafSource() = default;
        unsigned level;
    };
    struct FreshFrames;
    struct GivenFrames;
    struct DeviceFrames;

    // How many tables the two edges of a range may need beside its whole subtrees: copies of
    // tables, and gather tables.
    std::uint64_t edge_tables() const { return 2 * root_.top(); }
    TablePosition top() const { return top_position(root_); }
    // Where it is a copy of `old`, which was entered.
    void copied(FrameNumber old, FrameNumber copy);
    Result<void> enter(FrameNumber table, const TablePosition& position);
    bool is_edited_in_place(FrameNumber table, const TablePosition& position, PageRange part) const;
    Result<FrameNumber> editable(FrameNumber table, const TablePosition& position, unsigned slot,
                                 PageRange part);
    bool is_gone(Entry entry) const;
    // An entry of a table that is about to be this tree's alone.
    Result<Entry> claimed(Entry entry, const TablePosition& position, unsigned slot) const;
    // Such an entry for a copy of a table that stays where it is: one more reference.
    Result<Entry> shared(Entry entry, const TablePosition& position, unsigned slot);
    Result<void> unshare_tables_in(FrameNumber table, const TablePosition& position,
                                   PageRange range, std::uint64_t& tables);
    // As `find`, and the table may be written.
    Result<Found> find_to_edit(std::uint64_t page);
    Result<void> reserve_for(const Place& place, std::uint64_t leaves, memory::Placement placement,
                             unsigned leaf_level = 1);
    std::uint64_t missing_tables(FrameNumber table, const TablePosition& position, PageRange range,
                                 unsigned leaf_level) const;
    static std::uint64_t tables_for(const TablePosition& position, PageRange range,
                                    unsigned leaf_level);
    // Without a source, entries that are absent, of this kind.
    Result<void> map_in(FrameNumber table, const TablePosition& position, PageRange range,
                        Protection protection, LeafSource* source,
                        format::AbsentKind kind = format::AbsentKind::demand_zero,
                        std::uint64_t payload = 0);
    void link(FrameNumber table, unsigned slot, Entry entry);
    Result<TakenFrame> split_leaf(FrameNumber table, const TablePosition& position, unsigned slot,
                                  Entry entry);
    // For this place, an entry to a copy of what the frame and those behind it hold.
    Result<Entry> copied_leaf(FrameNumber old, Protection protection, const TablePosition& position,
                              unsigned slot, memory::Placement placement);
    Result<TakenFrame> copied_parts(FrameNumber old, Protection protection,
                                    const TablePosition& position, memory::Placement placement);
    std::optional<Found> evictable(std::uint64_t page);
    Result<void> check_reach(FrameNumber frame, std::uint64_t page, std::uint64_t frames = 1) const;
    Result<Found> find_block(std::uint64_t first_page);
    Result<void> make_stack(FrameNumber table, const TablePosition& position, PageRange room);
    Result<TakenFrame> split_absent(FrameNumber table, const TablePosition& position, unsigned slot,
                                    Entry entry);
    struct Unmapped {
        std::optional<TakenFrame> gather;  // a table with what the range held, for limbo
        bool emptied = false;              // whether entries of this very table went
    };
    Result<Unmapped> unmap_in(FrameNumber table, const TablePosition& position, PageRange range,
                              bool directly);
    Result<std::uint64_t> charged_pages_in(FrameNumber table, const TablePosition& position,
                                           PageRange range);
    bool is_all_empty(FrameNumber table, unsigned likely_used) const;
    std::uint64_t copied_tables(FrameNumber table, const TablePosition& position,
                                PageRange range) const;
    Result<std::optional<TakenFrame>> protect_in(FrameNumber table, const TablePosition& position,
                                                 PageRange range, Protection protection);
    Result<TakenFrame> copy_protected(FrameNumber table, const TablePosition& position,
                                      Protection protection);
    Result<Entry> reprotected(Entry entry, const TablePosition& position, unsigned slot,
                              Protection protection) const;
    // The first page of the range whose entry is so.
    Result<std::optional<std::uint64_t>> first_of(PageRange range, bool (*wanted)(Entry));
    template <typename Predicate>
    Result<std::optional<std::uint64_t>> first(FrameNumber table, const TablePosition& position,
                                               PageRange range, const Predicate& wanted);

    EditSession& session_;
    Root root_;
    std::vector<PageRange> moved_;
};

}  // namespace holdfast::table
