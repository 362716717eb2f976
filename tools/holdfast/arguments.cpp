#include "arguments.hpp"

#include <fmt/format.h>

#include "quantity.hpp"

namespace holdfast::tool {
namespace {

// The value, or the end of parsing.
template <typename T>
T value_of(const std::string& name, const Result<T>& parsed) {
    if (!parsed) throw CLI::ValidationError(name, parsed.error().message);
    return *parsed;
}

}  // namespace

CLI::Option* add_pool(CLI::App& command, std::string& pool) {
    return command.add_option("POOL", pool, "the pool: a file, a poolset or a devdax device")
        ->required();
}

CLI::Option* add_space(CLI::App& command, std::string& space) {
    return command.add_option("SPACE", space, "the name of an address space in the pool")
        ->required();
}

CLI::Option* add_address(CLI::App& command, VirtAddr& address) {
    return command
        .add_option_function<std::string>(
            "ADDRESS",
            [&address](const std::string& text) {
                address = value_of("ADDRESS", parse_address(text));
            },
            "a virtual address, 0x...")
        ->required();
}

CLI::Option* add_addresses(CLI::App& command, std::vector<VirtAddr>& addresses) {
    return command
        .add_option_function<std::vector<std::string>>(
            "ADDRESS",
            [&addresses](const std::vector<std::string>& texts) {
                for (const std::string& text : texts)
                    addresses.push_back(value_of("ADDRESS", parse_address(text)));
            },
            "virtual addresses, 0x...")
        ->required();
}

CLI::Option* add_physical_address(CLI::App& command, const std::string& name,
                                  std::uint64_t& address, const std::string& description) {
    return command.add_option_function<std::string>(
        name,
        [&address, name](const std::string& text) {
            address = value_of(name, parse_address(text)).bits();
        },
        description);
}

CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& size_bytes,
                      const std::string& description) {
    return command.add_option_function<std::string>(
        name,
        [&size_bytes, name](const std::string& text) {
            size_bytes = value_of(name, parse_size(text));
        },
        description);
}

CLI::Option* add_protection(CLI::App& command, Protection& protection) {
    return command.add_option_function<std::string>(
        "--prot",
        [&protection](const std::string& text) {
            const auto parsed = Protection::parse(text);
            if (!parsed)
                throw CLI::ValidationError(
                    "--prot", fmt::format("\"{}\" is not a protection; choose letters from rwxu "
                                          "(read, write, execute, user), such as rw",
                                          text));
            protection = *parsed;
        },
        "letters from rwxu: read, write, execute, user");
}

CLI::Option* add_levels(CLI::App& command, Levels& levels) {
    return command.add_option_function<std::string>(
        "--levels",
        [&levels](const std::string& text) {
            if (text != "3" && text != "4" && text != "5")
                throw CLI::ValidationError(
                    "--levels",
                    fmt::format("\"{}\" is not a number of levels; choose 3, 4 or 5 (39, 48 or 57 "
                                "bits of virtual address)",
                                text));
            levels = static_cast<Levels>(text[0] - '0');
        },
        "levels of page tables: 3, 4 (the default) or 5");
}

CLI::Option* add_page_size(CLI::App& command, PageSize& size) {
    return command
        .add_option_function<std::string>(
            "--page-size",
            [&size](const std::string& text) {
                const std::uint64_t wanted = value_of("--page-size", parse_size(text));
                for (const PageSize each :
                     {PageSize::size_4KiB, PageSize::size_2MiB, PageSize::size_1GiB}) {
                    size = each;
                    if (bytes(each) == wanted) return;
                }
                throw CLI::ValidationError(
                    "--page-size",
                    fmt::format("there are no pages of {}; there are 4KiB, 2MiB and 1GiB", text));
            },
            "the size of pages: 4KiB, 2MiB or 1GiB; address and length must be multiples of it")
        ->default_str("4KiB");
}

}  // namespace holdfast::tool
