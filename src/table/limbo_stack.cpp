#include "table/limbo_stack.hpp"

#include <fmt/format.h>

#include <unordered_set>

#include "memory/metadata_flush.hpp"
#include "memory/reader_section.hpp"

namespace holdfast::table {

using format::CheckedWord;
using format::FrameKind;
using format::FrameMetadata;
using format::LimboKind;
using format::LimboPage;
using format::LimboRecord;

namespace {

Error damaged(const memory::PhysicalMemory& memory, const std::string& what) {
    return {ErrorCode::damaged,
            fmt::format("{}: limbo: {} fails its check; run `verify`", memory.pool().path(), what)};
}

LimboPage* page_at(const memory::PhysicalMemory& memory, FrameNumber frame) {
    return reinterpret_cast<LimboPage*>(memory.host(frame));
}

}  // namespace

bool LimboStack::seems_empty() const {
    // The only word that is decoded as "none"; asked after every commit.
    constexpr std::uint64_t kNone = CheckedWord::encode(0, format::kSeedLimboHead);
    return pool::load_word(&memory_.superblock().limbo_head) == kNone;
}

Result<void> LimboStack::push(EditSession& session, const LimboRecord& record) {
    std::uint64_t* const head_word = &memory_.superblock().limbo_head;
    const auto head = CheckedWord::decode(session.load(head_word), format::kSeedLimboHead);
    if (!head) return std::unexpected(damaged(memory_, "the head"));
    if (*head != 0) {
        if (memory_.host(FrameNumber(*head)) == nullptr)
            return std::unexpected(damaged(memory_, "the head's frame number"));
        LimboPage* const page = page_at(memory_, FrameNumber(*head));
        const auto count = CheckedWord::decode(session.load(&page->count), format::kSeedLimboCount);
        if (!count || *count > format::kLimboRecordsPerPage)
            return std::unexpected(damaged(memory_, "the count of a page"));
        if (*count < format::kLimboRecordsPerPage) {
            // Behind the count nobody reads: in place, and a crash before the commit leaves a
            // record that does not exist.
            page->records[*count] = record;
            memory_.pool().flush(&page->records[*count], sizeof record);
            session.store_undo(&page->count,
                               CheckedWord::encode(*count + 1, format::kSeedLimboCount));
            return {};
        }
    }
    auto taken = session.take(FrameKind::limbo_page, 0, 0);
    if (!taken) return std::unexpected(taken.error());
    LimboPage* const page = page_at(memory_, taken->frame);
    page->next = CheckedWord::encode(*head, format::kSeedLimboNext);
    page->count = CheckedWord::encode(1, format::kSeedLimboCount);
    page->records[0] = record;
    memory_.pool().flush(page, offsetof(LimboPage, records) + sizeof record);
    session.store_undo(head_word,
                       CheckedWord::encode(taken->frame.value(), format::kSeedLimboHead));
    return {};
}

Result<LimboPage*> LimboStack::top_page() const {
    const auto head = CheckedWord::decode(memory_.superblock().limbo_head, format::kSeedLimboHead);
    if (!head) return std::unexpected(damaged(memory_, "the head"));
    if (*head == 0) return nullptr;
    const auto metadata = memory_.valid_metadata(FrameNumber(*head));
    if (!metadata || metadata->kind != FrameKind::limbo_page ||
        memory_.host(FrameNumber(*head)) == nullptr)
        return std::unexpected(damaged(memory_, "the first page's metadata"));
    LimboPage* const page = page_at(memory_, FrameNumber(*head));
    const auto count = CheckedWord::decode(page->count, format::kSeedLimboCount);
    if (!count || *count == 0 || *count > format::kLimboRecordsPerPage)
        return std::unexpected(damaged(memory_, "the count of a page"));
    return page;
}

Result<void> LimboStack::pop(EditSession& session, LimboPage* page) {
    const std::uint64_t count = *CheckedWord::decode(page->count, format::kSeedLimboCount);
    if (count > 1) {
        session.store_undo(&page->count, CheckedWord::encode(count - 1, format::kSeedLimboCount));
        return {};
    }
    const auto next = CheckedWord::decode(page->next, format::kSeedLimboNext);
    if (!next) return std::unexpected(damaged(memory_, "a link between pages"));
    std::uint64_t* const head_word = &memory_.superblock().limbo_head;
    const FrameNumber frame(*CheckedWord::decode(*head_word, format::kSeedLimboHead));
    session.store_undo(head_word, CheckedWord::encode(*next, format::kSeedLimboHead));
    return session.release(frame);
}

// What the entry was made for, or nothing: then the frame was freed already by an interrupted
// release, or something is damaged, and it is not ours to free.
std::optional<FrameMetadata> LimboStack::named_by(const EditSession& session, Entry entry,
                                                  const TablePosition& position,
                                                  unsigned slot) const {
    if (!entry.has_frame()) return std::nullopt;
    const auto metadata = session.metadata(entry.frame());
    if (!metadata || metadata->kind == FrameKind::free ||
        !entry.tag_fits(position.entry(slot), metadata->generation))
        return std::nullopt;
    return metadata;
}

// Dropping a reference is not repeatable, so the entry goes in the same transaction; a few at a
// time, so that its log stays small. Returns whether all of the table's are gone.
Result<bool> LimboStack::release_shared_frames(EditSession& session, FrameNumber table,
                                               const TablePosition& position) {
    unsigned released = 0;
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry = session.load_entry(table, slot);
        if (!entry.is_leaf(position.level)) continue;
        const auto metadata = named_by(session, entry, position, slot);
        if (!metadata || metadata->is_fixed() ||
            (metadata->kind != FrameKind::shared_data && metadata->references == 1))
            continue;
        if (released++ == kSharedFramesAtOnce) return false;
        session.store_undo(memory_.table(table) + slot, 0);
        if (auto done = session.release(entry.frame()); !done) return std::unexpected(done.error());
    }
    return true;
}

Result<void> LimboStack::release_data_frames(EditSession& session, FrameNumber table,
                                             const TablePosition& position,
                                             std::vector<memory::Extent>& freed,
                                             EditSession::Services& services) {
    memory::MetadataFlush flush(memory_);
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry = session.load_entry(table, slot);
        const auto metadata = named_by(session, entry, position, slot);
        if (!metadata || metadata->kind != format::leaf_kind(position.level) ||
            metadata->owner != position.owner ||
            metadata->index != position.child(slot).first_page() || metadata->references != 1)
            continue;
        const FrameNumber frame = memory_.current(entry.frame());
        const memory::Extent extent{frame, format::frames_of(metadata->kind)};
        if (auto done = services.allocator.prepare_release(extent); !done) return done;
        // A crash after this store leaves a free frame that a table in limbo still points to;
        // `named_by` skips it when the release is repeated.
        const memory::MetadataWords words = memory_.metadata(frame);
        pool::store_word(words.word0, FrameMetadata::free_word0(words.home, metadata->generation));
        flush.add(frame);
        freed.push_back(extent);
    }
    return {};
}

namespace {

// Whether the link of a root is likely one to a supervisor object's table: of the upper half, and
// not of this tree. It is not counted, and goes with the root, without a log.
bool leads_away(FaultKind kind, const TablePosition& position, unsigned slot) {
    return position.level >= 3 && position.index == 0 && slot >= kEntriesPerTable / 2 &&
           (kind == FaultKind::wrong_table || kind == FaultKind::stale_entry);
}

}  // namespace

Result<bool> LimboStack::release_one(EditSession::Services& services) {
    auto page = top_page();
    if (!page) return std::unexpected(page.error());
    if (*page == nullptr) return false;
    if (waiting_ != 0) {
        memory::ReaderSection::wait_for_readers();
        waiting_ = 0;
    }
    const std::uint64_t count = *CheckedWord::decode((*page)->count, format::kSeedLimboCount);
    const LimboRecord record = (*page)->records[count - 1];
    if (record.checksum != record.computed_checksum())
        return std::unexpected(damaged(memory_, "a record"));

    EditSession session(services);
    std::vector<memory::Extent> freed;
    FrameNumber table = Entry(record.entry).frame();
    if (record.kind == LimboKind::space) {
        auto finished = release_space_(table);
        if (!finished) return std::unexpected(finished.error());
        if (!*finished) return true;
        if (auto done = session.release(table); !done) return std::unexpected(done.error());
        if (auto done = pop(session, *page); !done) return std::unexpected(done.error());
    } else {
        // Down to the first table without tables below it.
        TablePosition position{record.level, record.owner, record.index};
        FrameNumber above;
        unsigned slot_above = 0;
        unsigned dropped = 0;
        if (!is_table_of(memory_, table, position))
            return std::unexpected(damaged(memory_, "the metadata of a detached table"));
        for (bool descended = true; descended && position.level > 1;) {
            descended = false;
            for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
                const Entry entry = session.load_entry(table, slot);
                if (!entry.is_table(position.level)) continue;
                const TablePosition child = position.child(slot);
                const auto damage = check_entry(memory_, entry, position, slot);
                if (damage && leads_away(*damage, position, slot)) continue;
                if (damage || session.metadata(entry.frame())->references > 1) {
                    // Damaged, or not ours: nothing below it is released, and `verify` finds what
                    // nobody names any more. Or others go on with it: as with shared frames, entry
                    // and reference at once. A few at a time, the rest when this comes again.
                    if (dropped++ == kSharedFramesAtOnce) {
                        if (auto done = session.commit({}); !done)
                            return std::unexpected(done.error());
                        return true;
                    }
                    session.store_undo(memory_.table(table) + slot, 0);
                    if (!damage) session.drop_shared(memory_.current(entry.frame()));
                    continue;
                }
                above = table;
                slot_above = slot;
                table = entry.frame();
                position = child;
                descended = true;
                break;
            }
        }
        if (record.kind == LimboKind::subtree) {
            auto all = release_shared_frames(session, table, position);
            if (!all) return std::unexpected(all.error());
            if (!*all) {
                if (auto done = session.commit({}); !done) return std::unexpected(done.error());
                return true;  // and the rest of this table next time
            }
            if (auto done = release_data_frames(session, table, position, freed, services); !done)
                return std::unexpected(done.error());
        }
        // Commit point of the release of this table: with it, its frame is free and nothing in
        // limbo points to it; before it, everything will be looked at again.
        if (auto done = session.release(table); !done) return std::unexpected(done.error());
        if (above != FrameNumber{})
            session.store_undo(memory_.table(above) + slot_above, 0);
        else if (auto done = pop(session, *page); !done)
            return std::unexpected(done.error());
    }
    if (auto done = session.commit({}); !done) return std::unexpected(done.error());
    for (const memory::Extent& extent : freed) services.allocator.give_back(extent);
    return true;
}

Result<void> LimboStack::visit(const std::function<void(const LimboRecord&)>& visit_record,
                               const std::function<void(FrameNumber page)>& visit_page) const {
    auto head = CheckedWord::decode(pool::load_word(&memory_.superblock().limbo_head),
                                    format::kSeedLimboHead);
    std::unordered_set<std::uint64_t> seen;
    while (head && *head != 0) {
        const FrameNumber frame(*head);
        if (!seen.insert(*head).second)
            return std::unexpected(damaged(memory_, "the order of the pages"));
        const auto metadata = memory_.valid_metadata(frame);
        if (!metadata || metadata->kind != FrameKind::limbo_page || memory_.host(frame) == nullptr)
            return std::unexpected(damaged(memory_, "a page's metadata"));
        visit_page(frame);
        const LimboPage* const page = page_at(memory_, frame);
        const auto count = CheckedWord::decode(page->count, format::kSeedLimboCount);
        if (!count || *count > format::kLimboRecordsPerPage)
            return std::unexpected(damaged(memory_, "the count of a page"));
        for (std::uint64_t i = *count; i-- > 0;) {
            const LimboRecord& record = page->records[i];
            if (record.checksum != record.computed_checksum())
                return std::unexpected(damaged(memory_, "a record"));
            visit_record(record);
        }
        head = CheckedWord::decode(page->next, format::kSeedLimboNext);
    }
    if (!head) return std::unexpected(damaged(memory_, "a link between pages"));
    return {};
}

}  // namespace holdfast::table
