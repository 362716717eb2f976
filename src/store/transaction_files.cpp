// What a transaction does with mapped files: ranges of them, their objects, pages that are loaded.
//
// A file object is a space of its own (format/file_record.hpp): its tables hold the pages that
// shared mappings have loaded, by their number in the file. It is made with the first mapping, in
// the same commit: a crash leaves both or none of it. Whoever loads a shared page, or changes what
// is known of the file, holds the object as he would a space.
#include <fmt/format.h>

#include <array>

#include "store/transaction_state.hpp"
#include "table/visit.hpp"

namespace holdfast::detail {

using format::AbsentKind;
using format::Backing;
using format::FileRecord;
using format::FrameKind;
using format::SpaceRecord;
using table::page_index;
using table::PageRange;
using table::TableEditor;

namespace {

// Of a file object: the first 256 TiB of a file, of which more can only be sparse.
constexpr Levels kFileLevels = Levels::four;

// What the mapping is of, and that it can be.
Result<KnownFile> look_at(const FileMapping& mapping, Range range, Protection protection) {
    const auto refuse = [&](const std::string& why) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("cannot map {} bytes of {} from offset {} on: {}", range.size_bytes,
                                mapping.path, mapping.offset, why));
    };
    if (mapping.offset % kPageSize != 0) return refuse("the offset must be a multiple of 4096");
    const std::uint64_t limit = table::all_pages(kFileLevels).end << kPageShift;
    if (mapping.offset >= limit || range.size_bytes > limit - mapping.offset)
        return refuse("that is not within its first 256 TiB");
    auto path = memory::file_system().canonical(mapping.path);
    if (!path) return std::unexpected(path.error());
    if (path->size() > format::kFilePathMax)
        return refuse(fmt::format("its path has more than {} bytes", format::kFilePathMax));
    // What is written to a shared mapping is to be written to the file, too.
    auto file = memory::file_system().open(*path, mapping.shared && protection.writable());
    if (!file) return std::unexpected(file.error());
    const auto identity = (*file)->identity();
    if (!identity) return std::unexpected(identity.error());
    return KnownFile{.path = std::move(*path), .identity = *identity};
}

}  // namespace

// --- objects ---

Result<void> TransactionState::join_both(const std::shared_ptr<SpaceState>& one,
                                         const std::shared_ptr<SpaceState>& other) {
    // Whichever comes first is joined first, see `join`.
    for (const auto& each :
         other->record < one->record ? std::array{other, one} : std::array{one, other})
        if (auto done = join(each); !done) return std::unexpected(done.error());
    return {};
}

// The object of the file, also one that this transaction has made; null if there is none.
Result<std::shared_ptr<SpaceState>> TransactionState::file_space(const KnownFile& file) {
    for (const Joined& joined : joined_)
        if (joined.created && joined.space->is_file && joined.new_file->path == file.path)
            return joined.space;
    {
        const std::shared_lock lock(store_->directory_map);
        store_->files.take_up(store_->directory());
    }
    const auto object = store_->files.find(file.path, file.identity);
    if (object == nullptr) return nullptr;
    return store_->find_space(FileRecord::name_of(object->owner()));
}

// An object whose file is not what it was goes on with what it is now, if nobody has anything of
// what it was.
Result<void> TransactionState::renew(const std::shared_ptr<SpaceState>& object,
                                     const KnownFile& file) {
    Joined& joined = **join(object);
    if (joined.created) return {};
    const auto known = store_->files.find(object->owner);
    const auto before = known ? known->known() : std::nullopt;
    if (!before)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: what is known of {} is damaged; run `repair`",
                                store_->pool->path(), file.path));
    // Looked at again: what was seen of it before may be of before a sync.
    const auto opened = known->open();
    if (opened) return {};
    const FileTrouble& trouble = opened.error();
    if (!loaded_pages(*store_, *object, table::all_pages(object->levels)).empty())
        return fail(ErrorCode::lost, trouble.why);
    const auto is_mapped = mapped_files(*store_).has(object->owner);
    if (!is_mapped) return std::unexpected(is_mapped.error());
    if (*is_mapped) return fail(ErrorCode::lost, trouble.why);
    joined.new_file = file;
    return {};
}

Result<std::shared_ptr<SpaceState>> TransactionState::make_file(const KnownFile& file) {
    const auto spoil = [&](Error error) {
        spoiled_ = error;
        return std::unexpected(std::move(error));
    };
    auto owner = next_owner();
    if (!owner) return spoil(owner.error());
    auto record_frame = session_.take(FrameKind::space_record, *owner, 0);
    if (!record_frame) return spoil(record_frame.error());
    auto root_table = session_.take_table({static_cast<unsigned>(kFileLevels), *owner, 0});
    if (!root_table) return spoil(root_table.error());
    SpaceRecord record{};
    record.owner = *owner;
    record.levels = static_cast<std::uint8_t>(kFileLevels);
    record.kind = format::SpaceKind::file;
    // As the space record before it: the frame is fresh, so in place, flushed, and reachable only
    // by the commit.
    const FileRecord on_medium = file.on_medium();
    store_->pool->copy(store_->memory.host(record_frame->frame) + format::kFileRecordAt, &on_medium,
                       on_medium.used_bytes());
    auto space =
        make_space(FileRecord::name_of(*owner), record, *record_frame, *root_table, nullptr);
    if (space) joined_.back().new_file = file;
    return space;
}

Result<void> TransactionState::set_file(const std::shared_ptr<SpaceState>& object,
                                        const KnownFile& known) {
    auto joined = join(object);
    if (!joined) return std::unexpected(joined.error());
    (*joined)->new_file = known;
    return {};
}

Result<void> TransactionState::remove_file(format::OwnerId owner) {
    if (auto joined = join_directory(); !joined) return joined;
    const std::string name = FileRecord::name_of(owner);
    auto space = store_->find_space(name);
    if (!space) return std::unexpected(space.error());
    return remove(*space, name);
}

void TransactionState::told_files(const Joined& joined) {
    const format::OwnerId owner = joined.space->owner;
    if (joined.removed) return store_->files.remove(owner);
    if (joined.created) store_->files.add(owner, joined.space->record);
    if (joined.new_file)
        if (const auto object = store_->files.find(owner)) object->set_known(*joined.new_file);
}

// --- ranges ---

Result<void> TransactionState::map_file(const std::shared_ptr<SpaceState>& space, Range range,
                                        Protection protection, const MapOptions& options) {
    if (!options.name.empty() || options.guard || options.region ||
        options.page_size != PageSize::size_4KiB)
        return fail(ErrorCode::invalid_argument,
                    "a mapped file is its range's name, is no guard, and its pages are of 4 KiB "
                    "and come from the region that the space prefers");
    const auto file = look_at(*options.file, range, protection);
    if (!file) return std::unexpected(file.error());
    auto object = file_space(*file);
    if (!object) return std::unexpected(object.error());
    if (*object == nullptr) {
        // The directory comes before spaces. Somebody may have made it meanwhile.
        if (auto joined = join_directory(); !joined) return joined;
        object = file_space(*file);
        if (!object) return std::unexpected(object.error());
    }
    if (*object != nullptr) {
        if (auto done = join_both(space, *object); !done) return done;
        if (auto done = renew(*object, *file); !done) return done;
    }
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "map", range, protection, pages); !fine) return fine;
    TableEditor editor(session_, (*joined)->root);
    auto place = unmapped_place(editor, **joined, pages);
    if (!place) return std::unexpected(place.error());
    if (*object == nullptr) {
        object = make_file(*file);
        if (!object) return std::unexpected(object.error());
        joined = join(space);  // what it returned before is good no more
    }
    if (auto done = (*joined)->annotations.add(
            {.first_page = pages.begin,
             .page_count = pages.count(),
             .name_offset = options.file->offset,
             .backing = options.file->shared ? Backing::shared_file : Backing::private_file,
             .file = (*object)->owner});
        !done)
        return spoiled_by(done);
    // The commit has the entries and what says of which file they are: a crash leaves both or none.
    return spoiled_by(editor.map_absent(*place, AbsentKind::file_backed, protection));
}

// --- pages ---

Result<bool> TransactionState::is_still(Joined& joined, std::uint64_t page,
                                        const FilePage& of) const {
    const auto in = joined.annotations.in({page, page + 1});
    if (!in) return std::unexpected(in.error());
    const auto known = of.object->known();
    return in->size() == 1 && in->front().file == of.object->owner() &&
           in->front().backing != Backing::none && in->front().file_page(page) == of.page &&
           (in->front().backing == Backing::shared_file) == of.is_shared && known &&
           // What was read before somebody accepted the file is of the time before that, and he has
           // passed over the page already.
           known->state != format::FileState::being_replaced && known->identity == of.read_of;
}

// The frame is fresh: its bytes are written in place and flushed, and durable with the commit that
// leads to it. A crash before that leaves the page as it was, to be loaded again, and a free frame.
Result<void> TransactionState::load_private(const std::shared_ptr<SpaceState>& space,
                                            VirtAddr address, const FilePage& of,
                                            std::span<const std::byte> content) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    const std::uint64_t page = page_index(address, space->levels);
    const auto still = is_still(**joined, page, of);
    if (!still || !*still) return still ? Result<void>() : std::unexpected(still.error());
    if (auto room = make_way(**joined, 1); !room) return room;
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    const auto filled =
        TableEditor(session_, (*joined)->root).fill_absent(page, AbsentKind::file_backed, [&] {
            auto frame = session_.take(FrameKind::data, space->owner, page, *where);
            if (frame)
                store_->pool->copy(store_->memory.host(frame->frame), content.data(), kPageSize);
            return frame;
        });
    if (!filled) return spoiled_by(std::unexpected(filled.error()));
    // Of a page that is not loaded no entry says whether it is private: it counts from now on.
    const auto charged = charged_pages(**joined, {page, page + 1});
    if (!charged) return spoiled_by(std::unexpected(charged.error()));
    return *filled ? charge(**joined, *charged, Promise::was_given) : Result<void>();
}

// One commit, for the object's entry and the space's: a crash leaves the page without a frame for
// both, or one for both. The frame has two references then, one for each entry.
Result<void> TransactionState::load_shared(const std::shared_ptr<SpaceState>& space,
                                           VirtAddr address, const FilePage& of,
                                           std::span<const std::byte> content) {
    const auto object = store_->find_space(FileRecord::name_of(of.object->owner()));
    if (!object) return std::unexpected(object.error());
    if (auto done = join_both(space, *object); !done) return done;
    Joined& joined = **join(space);
    const std::uint64_t page = page_index(address, space->levels);
    const auto still = is_still(joined, page, of);
    if (!still || !*still) return still ? Result<void>() : std::unexpected(still.error());

    TableEditor files(session_, (**join(*object)).root);
    auto found = files.find(of.page);
    if (!found) return std::unexpected(found.error());
    const bool is_new = !found->entry.is_present();
    if (is_new) {
        const auto place = files.place_of({of.page, of.page + 1});
        if (!place) return std::unexpected(place.error());
        // Within this session only, so that there is an entry to be filled.
        if (found->entry.is_empty())
            if (auto done = files.map_absent(*place, AbsentKind::file_backed,
                                             protection::rw | protection::u);
                !done)
                return spoiled_by(done);
        // What all share is charged to none of them.
        session_.charge_to((*object)->record);
        const auto filled = files.fill_absent(of.page, AbsentKind::file_backed, [&] {
            auto frame = session_.take(FrameKind::shared_data, (*object)->owner, of.page);
            if (frame)
                store_->pool->copy(store_->memory.host(frame->frame), content.data(), kPageSize);
            return frame;
        });
        if (!filled) return spoiled_by(std::unexpected(filled.error()));
        found = files.find(of.page);
        if (!found) return spoiled_by(std::unexpected(found.error()));
    }
    const FrameNumber frame = found->entry.frame();
    const auto filled =
        TableEditor(session_, joined.root).fill_absent(page, AbsentKind::file_backed, [&] {
            return session_.add_references(frame, 1);
        });
    return filled ? Result<void>() : spoiled_by(std::unexpected(filled.error()));
}

}  // namespace holdfast::detail
