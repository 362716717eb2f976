// Writing back, and what becomes of a file that is not what it was: Space::sync and the calls of
// Store on files (holdfast/file.hpp).
//
// The pool knows a file by its time of modification, which writing to it changes. So a sync is
// three steps, each durable before the next:
//   1. the file's record says that it is being written: its time means nothing from here on;
//   2. the changed pages are written, and the file is synced;
//   3. the record has the file's new time, and says that it is settled.
// Who writes to a page need not have made that durable. So each page is flushed before any of it is
// written to the file, and those that the file has already before the call returns: otherwise a
// failure of power would take back from the pool what the file keeps, under a record by which the
// two agree, and the next sync would put the old bytes over the file's.
// A crash before step 1 leaves file and record as they were. After it, up to step 3, the file may
// have any of the pages; the next opening does not take offence at its time, the pool still has all
// of them, and the next sync compares and writes them again. A crash after step 3 finds it done.
// In the other order, with the pages before the record, a crash between the two would leave a file
// whose time nobody knows: it would look as if others had written to it.
#include "holdfast/file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <shared_mutex>

#include "memory/reader_section.hpp"
#include "space/annotations.hpp"
#include "store/mapped_files.hpp"
#include "store/store_state.hpp"
#include "store/transaction_state.hpp"
#include "table/visit.hpp"

namespace holdfast {

using detail::FileObject;
using detail::KnownFile;
using detail::StoreState;
using detail::TransactionState;
using format::FileRecord;
using format::FileState;
using table::PageRange;

namespace {

using PageBytes = std::array<std::byte, kPageSize>;
using detail::loaded_pages;
using detail::LoadedPage;
using detail::mapped_files;

Result<void> commit_known(const std::shared_ptr<detail::SpaceState>& object,
                          const KnownFile& known) {
    TransactionState transaction(object->store);
    if (auto done = transaction.set_file(object, known); !done) return done;
    return transaction.commit();
}

// How many bytes of the page the file has.
std::size_t bytes_in_file(std::uint64_t page, std::uint64_t size_bytes) {
    const std::uint64_t begin = page << kPageShift;
    return begin >= size_bytes ? 0 : std::min<std::uint64_t>(kPageSize, size_bytes - begin);
}

// The same file, to be written.
Result<std::unique_ptr<memory::BackingFile>> open_to_write(const FileObject::Open& open) {
    auto file = memory::file_system().open(open.known.path, true);
    if (!file) {
        const bool is_gone = file.error().code == ErrorCode::not_found;
        return fail(is_gone ? ErrorCode::lost : file.error().code,
                    "cannot sync " + file.error().message + "; what the pool has stays there");
    }
    const auto now = (*file)->identity();
    if (!now) return std::unexpected(now.error());
    if (const auto trouble = difference(open.known, *now))
        return fail(ErrorCode::lost, "cannot sync " + trouble->why);
    return file;
}

// The file's object, for who is to hold its `syncing`, and waits for the object's writer lock while
// he does. busy: this thread's own transaction has that already, which it cannot give up here.
Result<std::shared_ptr<detail::SpaceState>> object_to_sync(StoreState& store,
                                                           const FileObject& file) {
    auto object = store.find_space(FileRecord::name_of(file.owner()));
    if (!object || !(*object)->writer.is_held_by_this_thread()) return object;
    const auto known = file.known();
    return fail(ErrorCode::busy,
                fmt::format("{} is held by another transaction of this thread; commit or abort "
                            "that one first",
                            known ? known->path : "the file"));
}

Result<void> sync_pages(StoreState& store, const FileObject& file, PageRange pages) {
    const auto object = object_to_sync(store, file);
    if (!object) return std::unexpected(object.error());
    const std::scoped_lock lock(file.syncing());
    auto opened = file.open();
    if (!opened) return fail(ErrorCode::lost, "cannot sync " + opened.error().why);
    const std::uint64_t size_bytes = opened->known.identity.size_bytes;
    pages.end =
        std::min({pages.end, opened->known.pages(), table::all_pages((*object)->levels).end});
    std::vector<LoadedPage> changed;
    if (pages.begin < pages.end) changed = loaded_pages(store, **object, pages);
    PageBytes bytes{};
    Result<void> read;
    std::erase_if(changed, [&](const LoadedPage& each) {
        const std::size_t size = bytes_in_file(each.page, size_bytes);
        if (read) read = opened->file->read(each.page << kPageShift, std::span(bytes).first(size));
        if (std::memcmp(bytes.data(), each.bytes, size) != 0) return false;
        store.pool->flush(each.bytes, kPageSize);
        return true;
    });
    if (!read) return read;
    KnownFile known = opened->known;
    if (changed.empty() && known.state == FileState::settled) {
        store.pool->drain();
        return {};
    }
    // To be written, and so possibly refused, only if there is something to write.
    if (!changed.empty()) {
        auto writable = open_to_write(*opened);
        if (!writable) return std::unexpected(writable.error());
        opened->file = std::move(*writable);
    }
    if (known.state != FileState::being_written) {
        known.state = FileState::being_written;
        if (auto marked = commit_known(*object, known); !marked) return marked;
    }
    for (const LoadedPage& each : changed) {
        // Whoever writes to the page meanwhile may have it synced or not: from a copy, so that it
        // is one of the two.
        std::memcpy(bytes.data(), each.bytes, kPageSize);
        store.pool->flush(each.bytes, kPageSize);
        store.pool->drain();
        const std::size_t size = bytes_in_file(each.page, size_bytes);
        if (auto done = opened->file->write(each.page << kPageShift, std::span(bytes).first(size));
            !done)
            return done;
    }
    if (auto done = opened->file->sync(); !done) return done;
    const auto now = opened->file->identity();
    if (!now) return std::unexpected(now.error());
    if (const auto trouble = difference(known, *now)) return fail(ErrorCode::lost, trouble->why);
    known.identity = *now;
    known.state = FileState::settled;
    // Pages that the file had already, too.
    store.pool->drain();
    return commit_known(*object, known);
}

Result<std::shared_ptr<FileObject>> file_of(StoreState& store, const std::string& path) {
    {
        const std::shared_lock lock(store.directory_map);
        store.files.take_up(store.directory());
    }
    // A file that is gone has its path still.
    const std::string canonical = memory::file_system().canonical(path).value_or(path);
    for (const auto& object : store.files.all()) {
        const auto known = object->known();
        if (known && (known->path == path || known->path == canonical)) return object;
    }
    return fail(ErrorCode::not_found,
                fmt::format("{}: {} is not mapped, and was not; `file list` shows what is",
                            store.pool->path(), path));
}

}  // namespace

std::vector<LoadedPage> detail::loaded_pages(const StoreState& store, const SpaceState& object,
                                             PageRange pages) {
    std::vector<LoadedPage> loaded;
    table::Visitor visitor;
    visitor.range = [&](const table::VisitedRange& visited) {
        if (!visited.entry.is_present() || (visited.damage && !is_file_loss(*visited.damage)))
            return;
        std::byte* const host = store.memory.host(visited.entry.frame());
        if (host != nullptr) loaded.push_back({visited.pages.begin, host});
    };
    const memory::ReaderSection section;
    // Somebody may have forgotten the file since the object was found.
    const table::Root root = object.root();
    if (!root.entry.is_empty()) table::visit(store.memory, root, pages, visitor);
    return loaded;
}

detail::MappedFiles detail::mapped_files(StoreState& store) {
    MappedFiles files;
    std::vector<std::string> names;
    {
        const std::shared_lock lock(store.directory_map);
        store.visit_records([&](std::string_view name, const format::SpaceRecord* record) {
            if (record == nullptr ? !FileRecord::owner_of(name)
                                  : record->kind != format::SpaceKind::file)
                names.emplace_back(name);
        });
    }
    for (const std::string& name : names) {
        const auto space = store.find_space(name);
        if (!space && space.error().code == ErrorCode::not_found) continue;  // removed meanwhile
        if (!space) {
            files.unknown = space.error();
            continue;
        }
        const std::shared_lock lock((*space)->names);
        const auto all = space::Annotations(*store.pool, (*space)->annotations)
                             .in(table::all_pages((*space)->levels));
        if (!all) {
            files.unknown = all.error();
            continue;
        }
        for (const format::Annotation& each : *all)
            if (each.backing != format::Backing::none) files.owners.insert(each.file);
    }
    return files;
}

Result<void> Space::sync(Range range) {
    const Levels levels = state_->levels;
    const VirtAddr last = range.start + (range.size_bytes - 1);
    if (range.size_bytes == 0) return {};
    if (last < range.start || VirtAddr::truncated(range.start.bits(), levels) != range.start ||
        VirtAddr::truncated(last.bits(), levels) != last ||
        range.start.bits() >> 63 != last.bits() >> 63)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("cannot sync {:#x}+{:#x}: it is no range of space \"{}\"",
                                range.start.bits(), range.size_bytes, name()));
    const PageRange pages{table::page_index(range.start, levels),
                          table::page_index(last, levels) + 1};
    std::vector<format::Annotation> found;
    {
        // All of the range is in one half.
        const detail::SpaceState& space = state_->responsible_for(range.start);
        const std::shared_lock lock(space.names);
        auto in = space::Annotations(*space.store->pool, space.annotations).in(pages);
        if (!in) return std::unexpected(in.error());
        found = std::move(*in);
    }
    for (std::size_t i = 0; i < found.size();) {
        const format::Annotation& first = found[i];
        std::uint64_t end = first.end_page();
        // Neighbours that go on in the file, too, are one range of it: the file is synced once.
        for (++i;
             i < found.size() && found[i].backing == first.backing && found[i].file == first.file &&
             found[i].first_page == end && found[i].file_page(end) == first.file_page(end);
             ++i)
            end = found[i].end_page();
        if (first.backing != format::Backing::shared_file) continue;
        const auto file = state_->store->files.find(first.file);
        if (!file)
            return fail(ErrorCode::damaged,
                        fmt::format("{}: a file that is mapped in space \"{}\" has lost its "
                                    "record; run `verify`",
                                    state_->store->pool->path(), name()));
        const PageRange part{first.file_page(std::max(pages.begin, first.first_page)),
                             first.file_page(std::min(pages.end, end) - 1) + 1};
        if (auto done = sync_pages(*state_->store, *file, part); !done) return done;
    }
    return {};
}

Result<std::vector<FileInfo>> Store::files() const {
    const detail::MappedFiles mapped = mapped_files(*state_);
    {
        const std::shared_lock lock(state_->directory_map);
        state_->files.take_up(state_->directory());
    }
    std::vector<FileInfo> files;
    for (const auto& file : state_->files.all()) {
        const auto known = file->known();
        FileInfo info;
        info.is_mapped = mapped.owners.contains(file->owner());
        if (known) {
            info.path = known->path;
            info.size_bytes = known->identity.size_bytes;
            info.is_syncing = known->state == FileState::being_written;
        }
        if (const auto opened = file->open(); !opened) {
            info.trouble = opened.error().kind;
            info.why = opened.error().why;
        }
        if (const auto object = state_->find_space(FileRecord::name_of(file->owner()))) {
            const PageRange all = table::all_pages((*object)->levels);
            info.resident_bytes = loaded_pages(*state_, **object, all).size() << kPageShift;
        }
        files.push_back(std::move(info));
    }
    std::sort(files.begin(), files.end(),
              [](const FileInfo& a, const FileInfo& b) { return a.path < b.path; });
    return files;
}

Result<void> Store::sync_file(const std::string& path) {
    const auto file = file_of(*state_, path);
    if (!file) return std::unexpected(file.error());
    return sync_pages(*state_, **file, {0, ~std::uint64_t{0}});
}

// With the file's content, whatever ends it in the middle leaves a record that says so. After a
// crash each access is then a fault until the call is repeated, and nobody sees pages of before
// beside pages of after. After an error only pages that are not in the pool are: tables that were
// validated in this opening are not asked again, and go on to show what the pool has.
Result<void> Store::accept_file(const std::string& path, FileContent content) {
    const auto file = file_of(*state_, path);
    if (!file) return std::unexpected(file.error());
    const auto object = object_to_sync(*state_, **file);
    if (!object) return std::unexpected(object.error());
    const std::scoped_lock lock((*file)->syncing());
    auto known = (*file)->known();
    if (!known) return fail(ErrorCode::damaged, path + ": its record is damaged; run `verify`");
    if (content == FileContent::of_pool && known->state == FileState::being_replaced)
        return fail(ErrorCode::lost,
                    fmt::format("{}: the pool's pages were being replaced by the file's, and that "
                                "was interrupted: some are of either; accept what the file has, by "
                                "`file accept` without --keep-pool",
                                path));
    auto opened = memory::file_system().open(known->path, false);
    if (!opened) return std::unexpected(opened.error());
    const auto now = (*opened)->identity();
    if (!now) return std::unexpected(now.error());
    if (content == FileContent::of_file) {
        known->state = FileState::being_replaced;
        if (auto marked = commit_known(*object, *known); !marked) return marked;
        PageBytes bytes{};
        for (const LoadedPage& each :
             loaded_pages(*state_, **object, table::all_pages((*object)->levels))) {
            if (auto read = (*opened)->read(each.page << kPageShift, bytes); !read) return read;
            state_->pool->copy(each.bytes, bytes.data(), kPageSize);
        }
        state_->pool->drain();
        const auto after = (*opened)->identity();
        if (!after) return std::unexpected(after.error());
        if (*after != *now)
            return fail(ErrorCode::busy,
                        fmt::format("{}: the file is being written by others; try again when they "
                                    "have finished",
                                    known->path));
    }
    known->identity = *now;
    known->state = FileState::settled;
    return commit_known(*object, *known);
}

Result<void> Store::forget_file(const std::string& path) {
    const auto file = file_of(*state_, path);
    if (!file) return std::unexpected(file.error());
    TransactionState transaction(state_);
    if (auto done = transaction.remove_file((*file)->owner()); !done) return done;
    // Who has it waits for what is held here.
    const std::unique_lock syncing((*file)->syncing(), std::try_to_lock);
    if (!syncing)
        return fail(ErrorCode::busy,
                    fmt::format("{}: {} is being synced or accepted; try again when that is done",
                                state_->pool->path(), path));
    // Whoever maps it from now on waits for this transaction: for the file's object, or, to have it
    // by a fork, for the directory.
    const auto is_mapped = mapped_files(*state_).has((*file)->owner());
    if (!is_mapped) return std::unexpected(is_mapped.error());
    if (*is_mapped)
        return fail(ErrorCode::busy,
                    fmt::format("{}: {} is mapped; `maps` shows where, unmap it first",
                                state_->pool->path(), path));
    return transaction.commit();
}

}  // namespace holdfast
