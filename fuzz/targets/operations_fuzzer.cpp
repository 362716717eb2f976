#include <cstdio>
#include <cstdlib>

#include "targets/targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string wrong = holdfast::crash::run_operations({data, size});
    if (wrong.empty()) return 0;
    std::fprintf(stderr, "operations: %s\n", wrong.c_str());
    std::abort();
}
