#include "targets/pool_image.hpp"

#include <stdexcept>

#include "judge/scratch_folder.hpp"

namespace holdfast::crash {
CrashImage make_pool_image(std::uint64_t size_bytes, const std::function<void(Store)>& fill) {
    const ScratchFolder folder;
    const std::string path = folder.path() + "/pool";
    auto store = Store::create(path, {.size_bytes = size_bytes, .emulation = PmemEmulation::on});
    if (!store) throw std::runtime_error(store.error().message);
    fill(std::move(*store));
    const auto bytes = read_file(path);
    if (!bytes) throw std::runtime_error(bytes.error().message);
    auto image = CrashImage::create(*bytes);
    if (!image) throw std::runtime_error(image.error().message);
    return std::move(*image);
}

Result<Store> open_image(const CrashImage& image) {
    return Store::open(image.path(), {.emulation = PmemEmulation::on});
}

}  // namespace holdfast::crash
