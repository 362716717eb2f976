// What one transaction does to frames and words, until it commits: its write set, the frames it has
// taken, released and detached. Knows neither virtual ranges nor spaces; TableEditor does.
//
// A frame that was taken in this session is *fresh*: nothing on the medium points to it, so its
// content is written in place and only flushed. How its metadata becomes durable depends:
//   - a few frames: by the log of the commit, which says of each whether it is free (word 0);
//   - more: the frames come from a Build, whose record makes everything in them void until the
//     commit clears it. So a range operation logs no pages, and its fences do not grow.
//
// The words that a session writes are its own until the commit: they belong to frames that it has
// taken, or to spaces that its owner has locked. A frame that several spaces name (of kind
// `shared_data`, or a table or page that forks and snapshots share until one of them writes)
// belongs to none, and sessions that hold different ones may change its reference count at the same
// time. So a session keeps by how much, and the commit adds that to the count that stands there
// then, under the store's commit lock. Only then is it known whether the frame becomes free, or the
// table goes to limbo with its references to others.
//
// What a link or leaf shows as shared may be shared no more. `claim` tells, under the commit lock,
// when no commit of another space is half-way: a count of one, at the end of a path that nobody
// shares, stays one, since nobody else can get there to raise it.
//
// Not thread-safe.
#pragma once

#include <array>
#include <boost/container/small_vector.hpp>
#include <functional>
#include <optional>
#include <unordered_set>
#include <vector>

#include "format/limbo.hpp"
#include "memory/build_log.hpp"
#include "memory/frame_allocator.hpp"
#include "memory/metadata_flush.hpp"
#include "memory/physical_memory.hpp"
#include "pool/pool.hpp"
#include "table/change_gate.hpp"
#include "table/commit_mutex.hpp"
#include "table/former_readers.hpp"
#include "table/walk.hpp"

namespace holdfast::table {

struct TakenFrame {
    FrameNumber frame;
    std::uint16_t generation = 0;
};

class LimboStack;

class EditSession {
  public:
    // What the sessions of one store share. `on_shortage` tries to free frames (for huge ones,
    // those that nobody uses any more: pages are not swapped for the sake of larger ones), and says
    // whether another attempt makes sense.
    struct Services {
        memory::PhysicalMemory& memory;
        memory::FrameAllocator& allocator;
        memory::BuildLog& build_log;
        LimboStack& limbo;
        ChangeGate& gate;
        CommitMutex& commit_mutex;
        FormerReaders& former_readers;
        std::function<bool(std::uint64_t frames, bool of_huge)> on_shortage;
    };

    explicit EditSession(Services& services)
        : services_(services), metadata_flush_(services.memory) {}
    EditSession(const EditSession&) = delete;
    EditSession& operator=(const EditSession&) = delete;
    ~EditSession() { abort(); }

    memory::PhysicalMemory& memory() const { return services_.memory; }

    // --- words ---
    std::uint64_t load(const std::uint64_t* word) const { return writes_.load(word); }
    // Whether any of these words is to have a value other than 0.
    bool has_nonzero_writes(const std::uint64_t* begin, const std::uint64_t* end) const {
        return writes_.has_nonzero(begin, end);
    }
    Entry load_entry(FrameNumber table, unsigned slot) const {
        return Entry(load(memory().table(table) + slot));
    }
    // In place if the table is fresh (the caller flushes), otherwise published by the commit.
    void store_entry(FrameNumber table, unsigned slot, Entry entry);
    void store_undo(std::uint64_t* word, std::uint64_t value) {
        writes_.store(word, value, pool::WordClass::undo);
    }
    // A word that readers follow, as they do entries.
    void store_publish(std::uint64_t* word, std::uint64_t value) {
        writes_.store(word, value, pool::WordClass::publish);
    }
    void flush_entries(FrameNumber table, unsigned first_slot, unsigned end_slot) const;
    std::optional<format::FrameMetadata> metadata(FrameNumber frame) const;
    // damaged if there is none, or it fails its check, or says that the frame is free.
    Result<format::FrameMetadata> metadata_of(FrameNumber frame) const;

    // --- frames ---
    // Of fixed ones (frame_metadata.hpp) nobody counts the references: what adds or drops one does
    // nothing to them.
    // Makes sure that the next `count` frames need no undo log. Worth it from kFewFrames on.
    // With a preferred region they are for data only.
    Result<void> reserve(std::uint64_t count, memory::Placement placement = {});
    static constexpr std::uint64_t kFewFrames = 16;
    // The same of huge frames of 2 MiB (level 2) or 1 GiB (level 3).
    Result<void> reserve_huge(unsigned level, std::uint64_t count, memory::Placement placement);
    // This session frees more than it takes: it may have frames that are held back for that.
    void may_take_held_back() { may_take_held_back_ = true; }
    // Data frames are taken for this space from here on (memory/frame_charges.hpp).
    void charge_to(memory::FrameCharges::Payer payer) { payer_ = payer; }
    // Takes a frame into use with this kind, owner and index (and one reference); its generation
    // is raised. Its content is what it was.
    Result<TakenFrame> take(format::FrameKind kind, OwnerId owner, std::uint64_t index,
                            memory::Placement placement = {});
    // The same of this very data frame, if it is still free: with what it holds.
    std::optional<TakenFrame> take_again(FrameNumber frame, OwnerId owner, std::uint64_t index);
    // From the commit on the page has its bytes here and, until somebody needs it, in the slot
    // (memory/swap_cache.hpp).
    void remember_swapped(const TakenFrame& page, FrameNumber slot) {
        swapped_in_.push_back({page, slot});
    }
    // The frame for a leaf at this level, huge above level 1. no_space also if there is enough, but
    // not in one piece.
    Result<TakenFrame> take_leaf(unsigned level, OwnerId owner, std::uint64_t index,
                                 memory::Placement placement = {});
    // Makes frames of their own of the 512 parts of the exclusive huge frame, which a leaf at this
    // level maps: their numbers follow each other, and these are their generations.
    Result<std::array<std::uint16_t, format::kEntriesPerTable>> split(FrameNumber frame,
                                                                      unsigned level);
    // An empty table for this position.
    Result<TakenFrame> take_table(const TablePosition& position);
    // The table is a copy of one that is not all well: it is not remembered as validated.
    void distrust(FrameNumber table);
    bool is_fresh(FrameNumber frame) const;
    // Drops one reference; with the last one the frame is free after commit and grace period.
    Result<void> release(FrameNumber frame);
    // For other entries to a frame that an entry of a locked space names, which from now on see
    // each other's writes; their tags want its generation. The commit refuses more than there can
    // be.
    Result<TakenFrame> add_references(FrameNumber frame, std::uint64_t count);
    // For one more entry to a table or frame that is then copied on write; what it is of.
    Result<format::FrameMetadata> share(FrameNumber frame);
    // Drops one reference of what share() was called for, or somebody else has shared.
    void drop_shared(FrameNumber frame);
    // Whether the frame, to which a path leads that is this session's alone, has no other reference
    // and no reader that came by one.
    Result<bool> claim(FrameNumber frame);
    // How a leaf is to permit writing to a frame at the end of such a path.
    format::Sharing sharing_of(FrameNumber frame, const format::FrameMetadata& metadata) const;

    // --- limbo ---
    // What the table (or space record) holds is released some time after the commit.
    void detach(format::LimboKind kind, const TablePosition& position, const TakenFrame& frame);

    // --- the end ---
    // Makes everything durable in one libpmemobj transaction, in which `body` runs as well. The
    // caller is inside the gate, and holds the store's commit lock if needs_commit_lock().
    Result<void> commit(const pool::Pool::Body& body);
    bool needs_commit_lock() const { return !detached_.empty() || !reference_changes_.empty(); }
    void abort();
    bool is_idle() const {
        return writes_.empty() && taken_.empty() && reference_changes_.empty() && !build_;
    }

  private:
    Result<void> begin_build();
    Result<FrameNumber> next_frame(memory::Placement placement, bool* from_build);
    TakenFrame take_into_use(FrameNumber frame, format::FrameKind kind, OwnerId owner,
                             std::uint64_t index, bool from_build);
    void store_metadata(memory::MetadataWords words, std::uint64_t word0);
    Result<void> free_with_commit(FrameNumber frame, const format::FrameMetadata& metadata);
    std::int64_t pending_references(FrameNumber frame) const;
    Result<void> settle_reference_changes();
    Result<void> settle(FrameNumber frame, std::int64_t change);
    static format::LimboRecord limbo_record(format::LimboKind kind, const TablePosition& position,
                                            const TakenFrame& frame);
    template <typename Attempt>
    auto while_room_is_made(std::uint64_t frames, const Attempt& attempt, bool of_huge = false);
    void end();

    Services& services_;
    bool may_take_held_back_ = false;
    std::optional<memory::FrameCharges::Payer> payer_;
    pool::WriteSet writes_;
    std::optional<memory::Build> build_;
    memory::MetadataFlush metadata_flush_;  // of what was taken
    // A call for a few pages needs no memory of its own for these.
    using Frames = boost::container::small_vector<FrameNumber, 8>;
    using Extents = boost::container::small_vector<memory::Extent, 4>;
    Frames singles_;     // taken through the undo log
    Extents huge_ones_;  // the same, of huge frames
    Frames taken_;       // tables among what was taken, to remember as validated
    Extents released_;   // free after the commit
    struct ReferenceChange {
        FrameNumber frame;
        std::int64_t change = 0;
    };
    // Of shared frames, in the order of the calls: a frame may be here several times.
    boost::container::small_vector<ReferenceChange, 8> reference_changes_;
    std::vector<format::LimboRecord> detached_;
    std::vector<std::pair<TakenFrame, FrameNumber>> swapped_in_;
    bool leaves_readers_ = false;  // below what is another's alone from this commit on
};

}  // namespace holdfast::table
