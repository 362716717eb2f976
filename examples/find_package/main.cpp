// A program of your own with holdfast: a store in a temporary file, and one page that holds a word.
#include <cstdio>
#include <expected>
#include <filesystem>
#include <holdfast/holdfast.hpp>
#include <span>
#include <string>

using namespace holdfast::literals;

namespace {

holdfast::Result<std::string> write_and_read_back(const std::filesystem::path& file) {
    auto store = holdfast::Store::create(
        file.string(), {.size_bytes = 32_MiB, .emulation = holdfast::PmemEmulation::on});
    if (!store) return std::unexpected(store.error());
    auto space = store->create_space("hello");
    if (!space) return std::unexpected(space.error());

    const holdfast::Range page{holdfast::VirtAddr(0x7000'0000), holdfast::kPageSize};
    if (auto mapped = space->map(page, holdfast::protection::rw); !mapped)
        return std::unexpected(mapped.error());

    const std::string word = "holdfast";
    if (auto written = space->write(page.start, std::as_bytes(std::span(word))); !written)
        return std::unexpected(written.error());
    if (auto durable = space->persist(page); !durable) return std::unexpected(durable.error());

    std::string copy(word.size(), '\0');
    if (auto read = space->read(page.start, std::as_writable_bytes(std::span(copy))); !read)
        return std::unexpected(read.error());
    return copy;
}

}  // namespace

int main() {
    const auto file = std::filesystem::temp_directory_path() / "use_holdfast.pool";
    std::filesystem::remove(file);
    const auto word = write_and_read_back(file);
    std::filesystem::remove(file);
    if (!word) {
        std::fprintf(stderr, "use_holdfast: %s\n", word.error().message.c_str());
        return 1;
    }
    std::printf("read back: %s\n", word->c_str());
    return *word == "holdfast" ? 0 : 1;
}
