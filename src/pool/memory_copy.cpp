#include "pool/memory_copy.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace holdfast::pool {
namespace {

std::unexpected<Error> failed(const std::string& path, const char* action) {
    const ErrorCode code = errno == EACCES || errno == EPERM    ? ErrorCode::permission_denied
                           : errno == ENOSPC || errno == ENOMEM ? ErrorCode::no_space
                                                                : ErrorCode::io;
    return fail(code, fmt::format("{}: cannot {}: {}", path, action, std::strerror(errno)));
}

struct File {
    explicit File(int opened) : descriptor(opened) {}
    ~File() {
        if (descriptor >= 0) close(descriptor);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    const int descriptor;
};

// Copies the bytes from `begin` to `end`.
bool copy_range(int from, int to, off_t begin, off_t end) {
    std::vector<std::byte> buffer(std::size_t{1} << 20);
    while (begin < end) {
        const auto wanted =
            std::min<std::size_t>(buffer.size(), static_cast<std::size_t>(end - begin));
        const ssize_t got = pread(from, buffer.data(), wanted, begin);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got == 0;  // it has become shorter, and is seen to be
        for (ssize_t done = 0; done < got;) {
            const ssize_t put = pwrite(to, buffer.data() + done,
                                       static_cast<std::size_t>(got - done), begin + done);
            if (put < 0 && errno == EINTR) continue;
            if (put < 0) return false;
            done += put;
        }
        begin += got;
    }
    return true;
}

}  // namespace

Result<MemoryCopy> MemoryCopy::of(const std::string& path) {
    const File file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.descriptor < 0) return failed(path, "open");
    // libpmemobj holds the exclusive one for as long as it has the pool open.
    if (flock(file.descriptor, LOCK_SH | LOCK_NB) != 0)
        return fail(ErrorCode::busy,
                    fmt::format("{}: open in another process; close it there first", path));
    struct stat status{};
    if (fstat(file.descriptor, &status) != 0) return failed(path, "look at");
    MemoryCopy copy(memfd_create("holdfast-copy", MFD_CLOEXEC));
    if (copy.file_ < 0 || ftruncate(copy.file_, status.st_size) != 0)
        return failed(path, "make a copy in memory");
    for (off_t at = 0; at < status.st_size;) {
        const off_t begin = lseek(file.descriptor, at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO) break;  // a hole to the end
        off_t end = begin < 0 ? -1 : lseek(file.descriptor, begin, SEEK_HOLE);
        if (end < 0) end = status.st_size;  // a file system that knows no holes
        if (!copy_range(file.descriptor, copy.file_, std::max(begin, at), end))
            return failed(path, "copy to memory");
        at = end;
    }
    return copy;
}

MemoryCopy::~MemoryCopy() {
    if (file_ >= 0) close(file_);
}

std::string MemoryCopy::path() const { return fmt::format("/proc/self/fd/{}", file_); }

}  // namespace holdfast::pool
