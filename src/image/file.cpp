#include "image/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace holdfast::image {
namespace {

std::unexpected<Error> refused(const std::string& path, int error_number) {
    switch (error_number) {
        case ENOENT:
        case ENOTDIR:
            return fail(ErrorCode::not_found,
                        fmt::format("{}: no such file; check the path", path));
        case EACCES:
        case EPERM:
            return fail(ErrorCode::permission_denied,
                        fmt::format("{}: {}; ask for read permission, or work on a copy", path,
                                    std::strerror(error_number)));
        default:
            return fail(ErrorCode::io, fmt::format("{}: {}", path, std::strerror(error_number)));
    }
}

}  // namespace

Result<File> File::open_special(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return refused(path, errno);
    return File(path, descriptor);
}

Result<File> File::open(const std::string& path) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0) return refused(path, errno);
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: not a regular file; name one", path));
    return open_special(path);
}

File::~File() {
    if (descriptor_ >= 0) close(descriptor_);
}

Result<std::uint64_t> File::size_bytes() const {
    struct stat status{};
    if (fstat(descriptor_, &status) != 0) return refused(path_, errno);
    return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t File::next_data(std::uint64_t offset) const {
    const off_t found = lseek(descriptor_, static_cast<off_t>(offset), SEEK_DATA);
    if (found >= 0) return static_cast<std::uint64_t>(found);
    return errno == ENXIO ? ~std::uint64_t{0} : offset;
}

Result<std::size_t> File::read(std::uint64_t offset, std::span<std::byte> destination) const {
    std::size_t size_bytes = 0;
    while (size_bytes < destination.size()) {
        const ssize_t part =
            pread(descriptor_, destination.data() + size_bytes, destination.size() - size_bytes,
                  static_cast<off_t>(offset + size_bytes));
        if (part == 0) break;
        if (part > 0) {
            size_bytes += static_cast<std::size_t>(part);
        } else if (errno != EINTR) {
            return refused(path_, errno);
        }
    }
    return size_bytes;
}

}  // namespace holdfast::image
