// The example of the README: keeps a greeting in an address space, and finds it at the next start.
#include <cstdio>
#include <cstring>
#include <holdfast/holdfast.hpp>

using namespace holdfast;
using namespace holdfast::literals;

int main(int argc, char** argv) {
    const char* const path = argc > 1 ? argv[1] : "greeting.pool";
    // The second run finds what the first has left, at the same virtual address.
    auto store = Store::open(path);
    if (!store) store = Store::create(path, {.size_bytes = 64_MiB});
    if (!store) return std::fprintf(stderr, "%s\n", store.error().message.c_str()), 1;
    const VirtAddr place{0x7000'0000'0000};
    auto space = store->open_space("greeting");
    if (!space) {
        space = store->create_space("greeting");
        if (!space || !space->map({place, 1_MiB}, protection::rw | protection::u)) return 1;
    }
    char text[64] = {};
    if (!space->read(place, std::as_writable_bytes(std::span(text)))) return 1;
    std::printf("found: \"%s\"\n", text);
    std::strcpy(text, "written before the restart");
    if (!space->write(place, std::as_bytes(std::span(text)))) return 1;
    return space->persist({place, sizeof text}) ? 0 : 1;
}
