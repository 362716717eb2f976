#include "support/durable_shadow.hpp"

#include <fmt/format.h>
#include <libpmem.h>

#include <algorithm>
#include <cstring>
#include <fstream>

namespace holdfast::test {
namespace {

constexpr std::size_t kPage = 4096, kLine = 64;
}  // namespace

DurableShadow::DurableShadow(std::byte* pool, std::size_t size_bytes)
    : pool_(pool),
      size_bytes_(size_bytes),
      start_(pool, pool + size_bytes),
      durable_(pool, pool + size_bytes) {
    crash::observe_boundary(this);
}
DurableShadow::~DurableShadow() { stop(); }
void DurableShadow::stop() { crash::observe_boundary(nullptr); }

bool DurableShadow::flush(const void* address, std::size_t size_bytes, const void*) {
    flushed(address, size_bytes, "flush");
    return false;
}

bool DurableShadow::drain(const void*) {
    fenced();
    return false;
}

// A copy is stored first and counts as flushed; its own drain, if it has one, comes after that.
bool DurableShadow::copy(void* destination, const void* source, int byte, std::size_t size_bytes,
                         unsigned flags, const void*) {
    if (source != nullptr)
        std::memmove(destination, source, size_bytes);
    else
        std::memset(destination, byte, size_bytes);
    if ((flags & PMEM_F_MEM_NOFLUSH) != 0) return true;
    flushed(destination, size_bytes, "copy");
    if ((flags & PMEM_F_MEM_NODRAIN) == 0) fenced();
    return true;
}

void DurableShadow::flushed(const void* address, std::size_t size_bytes, const char* what) {
    const auto* const from = static_cast<const std::byte*>(address);
    if (from < pool_ || from >= pool_ + size_bytes_ || size_bytes == 0) return;
    const auto at = static_cast<std::size_t>(from - pool_);
    crash_here(fmt::format("{} {}+{:#x}", what, at, size_bytes));
    const std::size_t begin = at / kLine * kLine;
    const std::size_t end = std::min(size_bytes_, (at + size_bytes + kLine - 1) / kLine * kLine);
    pending_.emplace_back(begin, std::vector<std::byte>(pool_ + begin, pool_ + end));
}

void DurableShadow::fenced() {
    crash_here("drain");
    for (const auto& [at, bytes] : pending_)
        std::memcpy(durable_.data() + at, bytes.data(), bytes.size());
    pending_.clear();
}

void DurableShadow::crash_here(const std::string& point) {
    const std::string name = fmt::format("event {}: {}", events_++, point);
    add(name, durable_.data(), false);
    add(name, pool_, true);
}

void DurableShadow::add(const std::string& point, const std::byte* bytes, bool everything_evicted) {
    CrashImage image{point, everything_evicted, {}};
    for (std::size_t at = 0; at < size_bytes_; at += kPage)
        if (std::memcmp(bytes + at, start_.data() + at, kPage) != 0)
            image.pages[at / kPage].assign(bytes + at, bytes + at + kPage);
    // The same again, of this extreme or the other: mostly one of the last two.
    const auto recent = images_.size() < 4 ? images_.begin() : images_.end() - 4;
    const bool known = std::any_of(
        recent, images_.end(), [&](const CrashImage& other) { return other.pages == image.pages; });
    if (!known) images_.push_back(std::move(image));
}

void DurableShadow::write(const CrashImage& image, const std::string& path) const {
    std::vector<std::byte> bytes = start_;
    for (const auto& [page, content] : image.pages)
        std::memcpy(bytes.data() + page * kPage, content.data(), kPage);
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

}  // namespace holdfast::test
