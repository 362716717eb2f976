// The door to mapped files: everything that the store learns of one, reads from it or writes to it
// goes through here, so that a test can put files of its own in their place and see each step.
// (The files of regions are memory, see pool/foreign_memory.hpp.)
//
// Thread safety: one open file belongs to one thread; the rest from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::memory {

// What tells one file, and one state of it, from others.
struct FileIdentity {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t size_bytes = 0;
    std::int64_t modified_ns = 0;  // since 1970

    friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

// An open regular file. Errors: io, and no_space of `write` and `sync`; all name the file.
class BackingFile {
  public:
    virtual ~BackingFile() = default;
    virtual Result<FileIdentity> identity() = 0;
    // What lies behind the end reads as zeros.
    virtual Result<void> read(std::uint64_t offset, std::span<std::byte> destination) = 0;
    // Must not reach behind the end.
    virtual Result<void> write(std::uint64_t offset, std::span<const std::byte> source) = 0;
    // What was written is on the file's medium then.
    virtual Result<void> sync() = 0;
};

class FileSystem {
  public:
    virtual ~FileSystem() = default;
    // Absolute and without links. Errors: not_found, permission_denied, io.
    virtual Result<std::string> canonical(const std::string& path) = 0;
    // Errors: not_found, permission_denied, busy (a program that runs, to be written),
    // invalid_argument (no regular file), io.
    virtual Result<std::unique_ptr<BackingFile>> open(const std::string& path, bool to_write) = 0;
};

// The operating system's, or what a test has put in its place; null gives it back.
FileSystem& file_system();
void replace_file_system(FileSystem* replacement);

}  // namespace holdfast::memory
