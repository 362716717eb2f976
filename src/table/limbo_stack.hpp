// The limbo stack (format/limbo.hpp): what commits have detached, and its release, one table at a
// time.
//
// Release frees only frames whose metadata names what is being released, so that it may be
// interrupted anywhere and repeated:
//   - a data frame with one reference becomes free by one 8-byte store, without a log; repeating it
//     finds the frame free and skips it;
//   - references of what others refer to as well, frames or tables, are dropped together with the
//     entry that held them, in one transaction;
//   - the table itself becomes free, and its entry in the table above (or its record) goes, in the
//     same transaction. Until then its frames are not given out, so none of them can have a new
//     user when the table is looked at again; and after a crash the interrupted table, which is
//     always the first one on the top record's path, is finished before any frame is given out.
//
// Thread safety: every function needs the store's commit lock, but `seems_empty`.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "format/limbo.hpp"
#include "table/edit_session.hpp"

namespace holdfast::table {

class LimboStack {
  public:
    explicit LimboStack(memory::PhysicalMemory& memory) : memory_(memory) {}

    // Puts a record on the stack as part of the session's commit.
    Result<void> push(EditSession& session, const format::LimboRecord& record);
    // So many records were committed just now: readers may still be below them.
    void pushed(std::uint64_t records) { waiting_ += records; }
    std::uint64_t waiting_for_readers() const { return waiting_; }

    bool seems_empty() const;
    // Releases one table of the top record, or some of the shared frames of one; false if the stack
    // is empty.
    Result<bool> release_one(EditSession::Services& services);

    // How a record of kind `space` is released: does one step; true when nothing but the space
    // record's frame is left, which is then released with the limbo record.
    using SpaceReleaser = std::function<Result<bool>(FrameNumber space_record)>;
    void on_space(SpaceReleaser releaser) { release_space_ = std::move(releaser); }

    // Visits every record from the top, for counting and `verify`; `pages` gets the frames that
    // the stack itself occupies.
    Result<void> visit(const std::function<void(const format::LimboRecord&)>& record,
                       const std::function<void(FrameNumber page)>& page) const;

  private:
    Result<format::LimboPage*> top_page() const;
    Result<void> pop(EditSession& session, format::LimboPage* page);
    // So few that the log fits into what a lane of libpmemobj has without asking its heap: limbo
    // can be released also when that heap is full.
    static constexpr unsigned kSharedFramesAtOnce = 8;
    std::optional<format::FrameMetadata> named_by(const EditSession& session, Entry entry,
                                                  const TablePosition& position,
                                                  unsigned slot) const;
    Result<bool> release_shared_frames(EditSession& session, FrameNumber table,
                                       const TablePosition& position);
    Result<void> release_data_frames(EditSession& session, FrameNumber table,
                                     const TablePosition& position,
                                     std::vector<memory::Extent>& freed,
                                     EditSession::Services& services);

    memory::PhysicalMemory& memory_;
    std::atomic<std::uint64_t> waiting_ = 0;
    SpaceReleaser release_space_;
};

}  // namespace holdfast::table
