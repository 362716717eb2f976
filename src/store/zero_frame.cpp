// The frame of zeros that pages share which were only read so far.
#include "format/checked_word.hpp"
#include "store/store_state.hpp"

namespace holdfast::detail {

Result<table::TakenFrame> StoreState::zero_frame() {
    const std::scoped_lock lock(zero_frame_mutex_);
    if (const auto known = memory.zero_frame())
        return table::TakenFrame{*known, memory.valid_metadata(*known)->generation};
    table::EditSession session(services);
    const auto taken = session.take(format::FrameKind::data, 0, 0);
    if (!taken) return taken;
    memory.pool().fill(memory.host(taken->frame), 0, kPageSize);
    session.store_undo(&memory.superblock().zero_frame,
                       format::CheckedWord::encode(memory.metadata(taken->frame).home.value(),
                                                   format::kSeedZeroFrame));
    const table::ChangeGate::Inside inside(gate);
    const CommitLock commit_lock(commit_mutex);
    // Commit point: its record and the word that names it, before any entry leads to it. A crash
    // before it leaves a free frame and no word. (If the word was damaged, the frame that it named
    // stays in use as long as entries lead there, and `verify` finds it afterwards.)
    if (auto done = session.commit({}); !done) return std::unexpected(done.error());
    return taken;
}

}  // namespace holdfast::detail
