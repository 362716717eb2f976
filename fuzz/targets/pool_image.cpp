#include "targets/pool_image.hpp"

#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace holdfast::crash {
namespace {

// Gone with its content at the end, also after an exception.
class ScratchFolder {
  public:
    ScratchFolder() {
        if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make " + path_);
    }
    ~ScratchFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_ = (std::filesystem::temp_directory_path() / "holdfast-fuzz-XXXXXX").string();
};

}  // namespace

CrashImage make_pool_image(std::uint64_t size_bytes, const std::function<void(Store)>& fill) {
    const ScratchFolder folder;
    const std::string path = folder.path() + "/pool";
    auto store = Store::create(path, {.size_bytes = size_bytes, .emulation = PmemEmulation::on});
    std::string bytes;
    if (!store) throw std::runtime_error(store.error().message);
    fill(std::move(*store));
    std::ifstream file(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
    auto image = CrashImage::create(std::as_bytes(std::span(bytes)));
    if (!image) throw std::runtime_error(image.error().message);
    return std::move(*image);
}

void write_bytes(CrashImage& image, std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const LineNumber line = offset / kLineBytes;
        const std::uint64_t at = offset % kLineBytes;
        const std::size_t count = std::min<std::size_t>(bytes.size(), kLineBytes - at);
        LineBytes changed;
        std::memcpy(changed.data(), image.content().data() + line * kLineBytes, kLineBytes);
        std::memcpy(changed.data() + at, bytes.data(), count);
        image.patch(line, changed);
        offset += count;
        bytes = bytes.subspan(count);
    }
}

void put_back(CrashImage& image) {
    std::vector<std::uint64_t> pages;
    for (std::uint64_t at = 0; at < image.size_bytes(); at += kPageSize)
        if (std::memcmp(image.content().data() + at, image.base().data() + at, kPageSize) != 0)
            pages.push_back(at / kPageSize);
    image.restore(pages);
}

Result<Store> open_image(const CrashImage& image) {
    return Store::open(image.path(), {.emulation = PmemEmulation::on});
}

}  // namespace holdfast::crash
