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
    return fail(code_of(errno),
                fmt::format("{}: cannot {}: {}", path, action, std::strerror(errno)));
}

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
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return failed(path, "open");
    // libpmemobj holds the exclusive one for as long as it has the pool open.
    if (flock(file.number(), LOCK_SH | LOCK_NB) != 0)
        return fail(ErrorCode::busy,
                    fmt::format("{}: open in another process; close it there first", path));
    struct stat status{};
    if (fstat(file.number(), &status) != 0) return failed(path, "look at");
    MemoryCopy copy(Descriptor(memfd_create("holdfast-copy", MFD_CLOEXEC)));
    if (!copy.file_ || ftruncate(copy.file_.number(), status.st_size) != 0)
        return failed(path, "make a copy in memory");
    for (off_t at = 0; at < status.st_size;) {
        const off_t begin = lseek(file.number(), at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO) break;  // a hole to the end
        off_t end = begin < 0 ? -1 : lseek(file.number(), begin, SEEK_HOLE);
        if (end < 0) end = status.st_size;  // a file system that knows no holes
        if (!copy_range(file.number(), copy.file_.number(), std::max(begin, at), end))
            return failed(path, "copy to memory");
        at = end;
    }
    return copy;
}

std::string MemoryCopy::path() const { return fmt::format("/proc/self/fd/{}", file_.number()); }

}  // namespace holdfast::pool
