#include "store/file_objects.hpp"

#include <fmt/format.h>

#include <cstring>

#include "format/space_record.hpp"

namespace holdfast::detail {

using format::FileRecord;
using format::FileState;
using memory::FileIdentity;

namespace {

constexpr const char* kAdvice =
    "`file accept` goes on with it as it is now, and unmapping the range is always possible";

FileTrouble missing(const Error& error) {
    return {FaultKind::file_missing,
            fmt::format("{}; bring the file back, or unmap the range", error.message)};
}

}  // namespace

FileRecord KnownFile::on_medium() const {
    FileRecord record{};
    record.magic = format::kFileMagic;
    record.device = identity.device;
    record.inode = identity.inode;
    record.size_bytes = identity.size_bytes;
    record.modified_ns = identity.modified_ns;
    record.state = state;
    record.path_length = static_cast<std::uint32_t>(path.size());
    std::memcpy(record.path, path.data(), path.size());
    record.checksum = record.computed_checksum();
    return record;
}

KnownFile KnownFile::of(const FileRecord& record) {
    return {.path = std::string(record.path_view()),
            .identity = {.device = record.device,
                         .inode = record.inode,
                         .size_bytes = record.size_bytes,
                         .modified_ns = record.modified_ns},
            .state = record.state};
}

// The device is not compared: it may have another number after each boot of the machine.
std::optional<FileTrouble> difference(const KnownFile& known, const FileIdentity& now) {
    const auto trouble = [&](FaultKind kind, const std::string& what) {
        return FileTrouble{kind, fmt::format("{}: the file {} since it was mapped or last synced; "
                                             "{}",
                                             known.path, what, kAdvice)};
    };
    if (known.state == FileState::being_replaced)
        return FileTrouble{
            FaultKind::file_changed,
            fmt::format("{}: the file was accepted as it is, and that was interrupted; call `file "
                        "accept` again",
                        known.path)};
    if (now.inode != known.identity.inode)
        return trouble(FaultKind::file_replaced, "was replaced by another one");
    if (now.size_bytes < known.identity.size_bytes)
        return trouble(FaultKind::file_truncated,
                       fmt::format("was truncated from {} to {} bytes", known.identity.size_bytes,
                                   now.size_bytes));
    if (now.size_bytes > known.identity.size_bytes)
        return trouble(FaultKind::file_changed,
                       fmt::format("has grown from {} to {} bytes", known.identity.size_bytes,
                                   now.size_bytes));
    // Of a file that was being written by us, nobody knows its time.
    if (known.state == FileState::settled && now.modified_ns != known.identity.modified_ns)
        return trouble(FaultKind::file_changed, "was written by others");
    return std::nullopt;
}

// --- one file ---

std::optional<KnownFile> FileObject::known_locked() const {
    if (!known_) {
        const std::byte* const host = memory_.host(record_);
        if (host != nullptr && FileRecord::of(host).is_valid())
            known_ = KnownFile::of(FileRecord::of(host));
    }
    return known_;
}

std::optional<KnownFile> FileObject::known() const {
    const std::scoped_lock lock(mutex_);
    return known_locked();
}

void FileObject::set_known(KnownFile known) {
    const std::scoped_lock lock(mutex_);
    known_ = std::move(known);
    is_well_.store(false, std::memory_order_release);
}

std::expected<FileObject::Open, FileTrouble> FileObject::open_as(KnownFile known) const {
    auto file = memory::file_system().open(known.path, false);
    if (!file) return std::unexpected(missing(file.error()));
    const auto now = (*file)->identity();
    if (!now) return std::unexpected(missing(now.error()));
    if (auto trouble = difference(known, *now)) return std::unexpected(std::move(*trouble));
    return Open{std::move(*file), std::move(known), *now};
}

std::expected<FileObject::Open, FileTrouble> FileObject::open() const {
    const std::scoped_lock lock(mutex_);
    const auto known = known_locked();
    if (!known)
        return std::unexpected(FileTrouble{
            FaultKind::file_missing,
            fmt::format("{}: the record of a mapped file (frame {:#x}) fails its check; run "
                        "`verify`",
                        memory_.pool().path(), record_.value())});
    auto opened = open_as(*known);
    is_well_.store(opened.has_value(), std::memory_order_release);
    return opened;
}

std::optional<FileTrouble> FileObject::check_again(Open& open) const {
    // What is known now: a sync may have begun or ended meanwhile, whose writes are no trouble. It
    // tells so before it writes, and waits here to do it.
    const std::scoped_lock lock(mutex_);
    const auto known = known_locked().value_or(open.known);
    const auto now = open.file->identity();
    auto trouble = now ? difference(known, *now) : std::optional(missing(now.error()));
    if (trouble) is_well_.store(false, std::memory_order_release);
    return trouble;
}

std::optional<FileTrouble> FileObject::out_of_reach(std::uint64_t page) const {
    if (!is_well_.load(std::memory_order_acquire))
        if (auto opened = open(); !opened) return std::move(opened.error());
    const auto known = this->known();
    if (!known || page < known->pages()) return std::nullopt;
    return FileTrouble{FaultKind::file_truncated,
                       fmt::format("{}: the page lay behind what is the file's end now, at {} "
                                   "bytes",
                                   known->path, known->identity.size_bytes)};
}

std::expected<void, FileTrouble> FileObject::read_page(std::uint64_t page,
                                                       std::span<std::byte> destination) const {
    auto opened = open();
    if (!opened) return std::unexpected(std::move(opened.error()));
    if (auto done = opened->file->read(page << kPageShift, destination); !done)
        return std::unexpected(missing(done.error()));
    // Otherwise it may have been cut off, or written, between the first look and the reading.
    if (auto trouble = check_again(*opened)) return std::unexpected(std::move(*trouble));
    return {};
}

// --- all of them ---

void FileObjects::take_up(const pool::OrderedMap& directory) {
    if (is_taken_up_.load(std::memory_order_acquire)) return;
    const std::unique_lock lock(mutex_);
    directory.visit(std::string(1, format::kFileNamePrefix), [&](std::string_view name,
                                                                 std::string_view value) {
        if (name.empty() || name.front() != format::kFileNamePrefix) return false;
        std::uint64_t frame = 0;
        const auto owner = FileRecord::owner_of(name);
        if (!owner || value.size() != sizeof frame) return true;
        std::memcpy(&frame, value.data(), sizeof frame);
        objects_.try_emplace(*owner, std::make_shared<FileObject>(
                                         memory_, *owner, memory_.current(FrameNumber(frame))));
        return true;
    });
    any_.store(!objects_.empty(), std::memory_order_release);
    is_taken_up_.store(true, std::memory_order_release);
}

void FileObjects::add(format::OwnerId owner, FrameNumber record) {
    const std::unique_lock lock(mutex_);
    objects_[owner] = std::make_shared<FileObject>(memory_, owner, record);
    any_.store(true, std::memory_order_release);
}

void FileObjects::remove(format::OwnerId owner) {
    const std::unique_lock lock(mutex_);
    objects_.erase(owner);
}

std::shared_ptr<FileObject> FileObjects::find(std::uint64_t owner) const {
    const std::shared_lock lock(mutex_);
    const auto found = objects_.find(owner);
    return found != objects_.end() ? found->second : nullptr;
}

std::vector<std::shared_ptr<FileObject>> FileObjects::all() const {
    const std::shared_lock lock(mutex_);
    std::vector<std::shared_ptr<FileObject>> all;
    all.reserve(objects_.size());
    for (const auto& [owner, object] : objects_) all.push_back(object);
    return all;
}

std::shared_ptr<FileObject> FileObjects::find(const std::string& path,
                                              const FileIdentity& identity) const {
    std::shared_ptr<FileObject> linked;
    for (const auto& object : all()) {
        const auto known = object->known();
        if (!known) continue;
        if (known->path == path) return object;
        if (known->identity.inode != identity.inode) continue;
        // Numbers are given again: only if its own path leads there still.
        if (auto file = memory::file_system().open(known->path, false))
            if (const auto now = (*file)->identity();
                now && now->inode == identity.inode && now->device == identity.device)
                linked = object;
    }
    return linked;
}

std::optional<FaultKind> FileObjects::out_of_reach(format::OwnerId owner,
                                                   std::uint64_t page) const {
    if (!any_.load(std::memory_order_acquire)) return std::nullopt;
    const auto object = find(owner);
    const auto trouble = object ? object->out_of_reach(page) : std::nullopt;
    return trouble ? std::optional(trouble->kind) : std::nullopt;
}

}  // namespace holdfast::detail
