// A program with known accesses, to be traced: reads eight bytes of each of PAGES pages, in order,
// ROUNDS times, at an address where nothing else is.
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

int main(int count, char** words) {
    if (count != 3) return 2;
    const std::size_t pages = std::strtoul(words[1], nullptr, 10);
    const std::size_t rounds = std::strtoul(words[2], nullptr, 10);
    void* const wanted = reinterpret_cast<void*>(0x30'0000'0000);
    void* const memory = mmap(wanted, pages * 4096, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != wanted) return 1;
    const auto* const words_of_pages = static_cast<const volatile std::uint64_t*>(memory);
    std::uint64_t sum = 0;
    for (std::size_t round = 0; round < rounds; ++round)
        for (std::size_t page = 0; page < pages; ++page) sum += words_of_pages[page * 512];
    return sum == 0 ? 0 : 1;
}
