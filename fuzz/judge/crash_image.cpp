#include "judge/crash_image.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tracer/watched_pool.hpp"

namespace holdfast::crash {
namespace {
constexpr std::uint64_t kPage = 4096;
}

Result<CrashImage> CrashImage::create(std::span<const std::byte> content) {
    CrashImage image;
    image.file_ = memfd_create("holdfast-crash", 0);
    const auto size = static_cast<off_t>(content.size());
    if (image.file_ < 0 || ftruncate(image.file_, size) != 0)
        return fail(ErrorCode::io,
                    fmt::format("no memory for an image of the pool: {}", std::strerror(errno)));
    // Past the interposed mmap: these are the harness's own stores.
    void* const at =
        raw_mmap(nullptr, content.size(), PROT_READ | PROT_WRITE, MAP_SHARED, image.file_, 0);
    if (at == MAP_FAILED)
        return fail(ErrorCode::io,
                    fmt::format("cannot map an image of the pool: {}", std::strerror(errno)));
    image.mapped_ = static_cast<std::byte*>(at);
    image.base_.assign(content.begin(), content.end());
    std::memcpy(image.mapped_, content.data(), content.size());
    image.path_ = fmt::format("/proc/{}/fd/{}", getpid(), image.file_);
    return image;
}

CrashImage::CrashImage(CrashImage&& other) noexcept
    : file_(std::exchange(other.file_, -1)),
      mapped_(std::exchange(other.mapped_, nullptr)),
      base_(std::move(other.base_)),
      patched_(std::move(other.patched_)),
      path_(std::move(other.path_)) {}

CrashImage::~CrashImage() {
    if (mapped_ != nullptr) raw_munmap(mapped_, base_.size());
    if (file_ >= 0) close(file_);
}

void CrashImage::set_base(LineNumber line, const LineBytes& bytes) {
    std::memcpy(base_.data() + line * kLineBytes, bytes.data(), kLineBytes);
    std::memcpy(mapped_ + line * kLineBytes, bytes.data(), kLineBytes);
}

void CrashImage::patch(LineNumber line, const LineBytes& bytes) {
    std::memcpy(mapped_ + line * kLineBytes, bytes.data(), kLineBytes);
    patched_.push_back(line);
}

void CrashImage::patch_bytes(std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const LineNumber line = offset / kLineBytes;
        const std::size_t size =
            std::min<std::size_t>(bytes.size(), kLineBytes - offset % kLineBytes);
        std::memcpy(mapped_ + offset, bytes.data(), size);
        patched_.push_back(line);
        offset += size;
        bytes = bytes.subspan(size);
    }
}

void CrashImage::restore(const std::vector<std::uint64_t>& pages) {
    for (const std::uint64_t page : pages) {
        const std::uint64_t at = page * kPage;
        if (at < base_.size())
            std::memcpy(mapped_ + at, base_.data() + at,
                        std::min<std::uint64_t>(kPage, base_.size() - at));
    }
    for (const LineNumber line : patched_)
        std::memcpy(mapped_ + line * kLineBytes, base_.data() + line * kLineBytes, kLineBytes);
    patched_.clear();
}

void CrashImage::restore_all() {
    // A subject that changed the file's size has changed it for good otherwise.
    if (ftruncate(file_, static_cast<off_t>(base_.size())) == 0)
        std::memcpy(mapped_, base_.data(), base_.size());
    patched_.clear();
}

void CrashImage::restore_by_comparing() {
    // Pages that a shortened file lost would not be there to be compared.
    if (ftruncate(file_, static_cast<off_t>(base_.size())) != 0) return;
    for (std::uint64_t at = 0; at < base_.size(); at += kPage) {
        const std::uint64_t size = std::min<std::uint64_t>(kPage, base_.size() - at);
        if (std::memcmp(mapped_ + at, base_.data() + at, size) != 0)
            std::memcpy(mapped_ + at, base_.data() + at, size);
    }
    patched_.clear();
}

}  // namespace holdfast::crash
