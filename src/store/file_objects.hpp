// The mapped files of a store, in this opening: which they are, and whether each still is what its
// record says (format/file_record.hpp).
//
// A file is looked at when something of it is first asked for: a page that is to be loaded, or one
// in the pool that a walk comes to. So opening a store costs the same for any number of files. Once
// it was found as it should be, pages in the pool are not checked again in this opening; each load
// and each sync looks again. While it is not, everybody who asks looks again: it may be back.
//
// Thread safety: any thread. The mutexes in here are held by nobody who calls out, so that a walk
// may ask whatever it holds; but for the file system, which is asked under a file's own.
#pragma once

#include <atomic>
#include <expected>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "format/file_record.hpp"
#include "holdfast/fault.hpp"
#include "memory/backing_file.hpp"
#include "memory/physical_memory.hpp"
#include "pool/pool.hpp"

namespace holdfast::detail {

// What a file object's record says.
struct KnownFile {
    std::string path;
    memory::FileIdentity identity;
    format::FileState state = format::FileState::settled;

    // A page behind the last one is no page of the file.
    std::uint64_t pages() const {
        return (identity.size_bytes >> kPageShift) + (identity.size_bytes % kPageSize != 0 ? 1 : 0);
    }
    format::FileRecord on_medium() const;
    static KnownFile of(const format::FileRecord& record);
};

// Why a file's bytes cannot be had.
struct FileTrouble {
    FaultKind kind{};
    std::string why;  // a sentence, with what to do
};

class FileObject {
  public:
    FileObject(const memory::PhysicalMemory& memory, format::OwnerId owner, FrameNumber record)
        : memory_(memory), owner_(owner), record_(record) {}

    format::OwnerId owner() const { return owner_; }
    FrameNumber record() const { return record_; }
    // Nothing if the record fails its check.
    std::optional<KnownFile> known() const;
    // After a commit that has changed the record.
    void set_known(KnownFile known);

    // The file, to be read, if it is what the record says. Looks, whatever was found before.
    struct Open {
        std::unique_ptr<memory::BackingFile> file;
        KnownFile known;
        memory::FileIdentity now;
    };
    std::expected<Open, FileTrouble> open() const;
    // Whether an open file still is.
    std::optional<FileTrouble> check_again(Open& open) const;
    // The same about a page that is in the pool, once for this opening.
    std::optional<FileTrouble> out_of_reach(std::uint64_t page) const;
    // The page's bytes as the file has them; zeros behind its end.
    std::expected<void, FileTrouble> read_page(std::uint64_t page,
                                               std::span<std::byte> destination) const;

    // Held by whoever writes pages to the file, or replaces them by the file's. Comes before the
    // object's writer lock; who has that may try it, and not wait for it.
    std::mutex& syncing() const { return syncing_; }

  private:
    std::expected<Open, FileTrouble> open_as(KnownFile known) const;
    std::optional<KnownFile> known_locked() const;

    const memory::PhysicalMemory& memory_;
    const format::OwnerId owner_;
    const FrameNumber record_;
    mutable std::mutex mutex_;
    mutable std::optional<KnownFile> known_;  // once it was read
    mutable std::atomic<bool> is_well_ = false;
    mutable std::mutex syncing_;
};

// What differs between what the record says and what was found.
std::optional<FileTrouble> difference(const KnownFile& known, const memory::FileIdentity& now);

class FileObjects {
  public:
    explicit FileObjects(const memory::PhysicalMemory& memory) : memory_(memory) {}

    // Takes up what the directory names, whose mutex is held; the first time only.
    void take_up(const pool::OrderedMap& directory);
    void add(format::OwnerId owner, FrameNumber record);
    void remove(format::OwnerId owner);

    std::shared_ptr<FileObject> find(std::uint64_t owner) const;
    std::vector<std::shared_ptr<FileObject>> all() const;
    // Of this path, or, by another path, of the same file.
    std::shared_ptr<FileObject> find(const std::string& path,
                                     const memory::FileIdentity& identity) const;
    // Why a page in the pool, of that owner, is not to be had; nothing if it is no file's.
    std::optional<FaultKind> out_of_reach(format::OwnerId owner, std::uint64_t page) const;

  private:
    const memory::PhysicalMemory& memory_;
    mutable std::shared_mutex mutex_;
    std::atomic<bool> is_taken_up_ = false;
    std::atomic<bool> any_ = false;
    std::map<std::uint64_t, std::shared_ptr<FileObject>> objects_;  // by owner
};

}  // namespace holdfast::detail
