// Mapped files: a range of a space holds what a file holds.
//
//     space.map(range, protection::rw, {.file = FileMapping{.path = "/data/table", .shared =
//     true}}); space.write(range.start, bytes);     // all who map the file shared see it
//     space.sync(range);                   // and now the file has it
//
// A page is loaded at its first access (Space::read, write, fault; `translate` alone gives the
// fault `file_backed`). Of a *private* mapping it is then a page of the space like any other: what
// is written to it nobody else sees, and what becomes of the file later has no effect on it. Of a
// *shared* mapping all spaces that map the file have the same frame for it: they see each other's
// writes at once, and the file gets them by `sync`, by no other way. Both are persistent: the pages
// that were loaded, and what was written to them (as always from `persist` on), are there after a
// crash and a restart, synced or not.
//
// The file must stay what it is. Its inode, size and modification time are compared with those of
// when it was mapped, or last synced: with each page that is loaded, with each sync, and, in each
// opening of the store, before the first byte of a shared page that is in the pool already. If
// something differs, the access is a fault (FaultKind::file_missing, file_replaced, file_truncated,
// file_changed) and never garbage; private pages that were loaded before stay. `Store::accept_file`
// goes on with the file as it is, on purpose. Not noticed is who writes to it while a sync does,
// within the same tick of the file system's clock (some milliseconds) as the last sync, or after
// one that a crash or an error interrupted and before the next: then the time says nothing.
//
// A shared mapping with w needs a file that may be written, when it is made. Later nobody asks
// before `sync` has something to write: neither when `protect` adds w, nor when the file's own
// permissions change. What was written is then kept in the pool, and `sync` says permission_denied.
//
// The end. Bytes behind it, in the last page, read as zeros, may be written, and never reach the
// file: its size does not change. An access to a page wholly behind it is a fault (`file_end`).
//
// The store remembers a file until `forget_file`, also when nothing maps it any more: what was
// written and not synced is not lost by an unmap. (With no page in the pool there is nothing to
// lose: the next mapping takes the file as it is then.)
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/fault.hpp"

namespace holdfast {

// For MapOptions::file.
struct FileMapping {
    std::string path;
    std::uint64_t offset = 0;  // of the range's first byte; a multiple of 4096, below 256 TiB
    bool shared = false;
};

// A file that is mapped, or was.
struct FileInfo {
    std::string path;
    std::uint64_t size_bytes = 0;      // as of when it was mapped or last synced
    std::uint64_t resident_bytes = 0;  // pages that shared mappings have loaded
    bool is_mapped = false;            // by any space or snapshot that is not damaged
    // A sync was interrupted; the next one will do all of it.
    bool is_syncing = false;
    std::optional<FaultKind> trouble = {};  // what an access would say
    std::string why = {};                   // a sentence about it
};

// With what Store::accept_file goes on.
enum class FileContent : std::uint8_t {
    of_file,  // what is in the pool is replaced by what the file has now; unsynced writes are lost
    of_pool,  // what is in the pool stays, and the next sync puts it into the file
};

}  // namespace holdfast
