#include "memory/backing_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace holdfast::memory {
namespace {

std::unexpected<Error> failed(const std::string& path, const char* action, int error) {
    const ErrorCode code = error == ENOENT || error == ENOTDIR ? ErrorCode::not_found
                           : error == EACCES || error == EPERM || error == EROFS
                               ? ErrorCode::permission_denied
                           : error == ETXTBSY                   ? ErrorCode::busy
                           : error == ENOSPC || error == EDQUOT ? ErrorCode::no_space
                                                                : ErrorCode::io;
    const char* const advice =
        code == ErrorCode::no_space ? "; nothing is lost: make room, and try again" : "";
    return fail(code, fmt::format("{}: cannot {} the file: {}{}", path, action,
                                  std::strerror(error), advice));
}

class SystemFile final : public BackingFile {
  public:
    SystemFile(std::string path, int descriptor)
        : path_(std::move(path)), descriptor_(descriptor) {}
    ~SystemFile() override { close(descriptor_); }
    SystemFile(const SystemFile&) = delete;
    SystemFile& operator=(const SystemFile&) = delete;

    Result<FileIdentity> identity() override {
        struct stat found{};
        if (fstat(descriptor_, &found) != 0) return failed(path_, "look at", errno);
        return FileIdentity{.device = found.st_dev,
                            .inode = found.st_ino,
                            .size_bytes = static_cast<std::uint64_t>(found.st_size),
                            // Only compared: after the year 2262 it goes round.
                            .modified_ns = static_cast<std::int64_t>(
                                static_cast<std::uint64_t>(found.st_mtim.tv_sec) * 1'000'000'000 +
                                static_cast<std::uint64_t>(found.st_mtim.tv_nsec))};
    }
    Result<void> read(std::uint64_t offset, std::span<std::byte> destination) override {
        while (!destination.empty()) {
            const ssize_t count = pread(descriptor_, destination.data(), destination.size(),
                                        static_cast<off_t>(offset));
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return failed(path_, "read", errno);
            if (count == 0) {
                std::memset(destination.data(), 0, destination.size());
                return {};
            }
            destination = destination.subspan(static_cast<std::size_t>(count));
            offset += static_cast<std::uint64_t>(count);
        }
        return {};
    }
    Result<void> write(std::uint64_t offset, std::span<const std::byte> source) override {
        while (!source.empty()) {
            const ssize_t count =
                pwrite(descriptor_, source.data(), source.size(), static_cast<off_t>(offset));
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return failed(path_, "write", errno);
            source = source.subspan(static_cast<std::size_t>(count));
            offset += static_cast<std::uint64_t>(count);
        }
        return {};
    }
    Result<void> sync() override {
        if (fsync(descriptor_) != 0) return failed(path_, "sync", errno);
        return {};
    }

  private:
    std::string path_;
    int descriptor_;
};

class SystemFiles final : public FileSystem {
  public:
    Result<std::string> canonical(const std::string& path) override {
        char* const found = realpath(path.c_str(), nullptr);
        if (found == nullptr) return failed(path, "find", errno);
        std::string text(found);
        std::free(found);
        return text;
    }
    Result<std::unique_ptr<BackingFile>> open(const std::string& path, bool to_write) override {
        // O_NONBLOCK: a pipe is told to be no file, instead of being waited for.
        const int descriptor =
            ::open(path.c_str(), (to_write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
        struct stat found{};
        const bool is_directory = descriptor < 0 && errno == EISDIR;
        if (descriptor < 0 && !is_directory) return failed(path, "open", errno);
        if (is_directory || fstat(descriptor, &found) != 0 || !S_ISREG(found.st_mode)) {
            if (descriptor >= 0) close(descriptor);
            return fail(
                ErrorCode::invalid_argument,
                fmt::format("{}: is no regular file, and nothing else can be mapped", path));
        }
        return std::make_unique<SystemFile>(path, descriptor);
    }
};

std::atomic<FileSystem*> replaced = nullptr;

}  // namespace

FileSystem& file_system() {
    static SystemFiles system;
    FileSystem* const replacement = replaced.load(std::memory_order_acquire);
    return replacement != nullptr ? *replacement : system;
}

void replace_file_system(FileSystem* replacement) {
    replaced.store(replacement, std::memory_order_release);
}

}  // namespace holdfast::memory
