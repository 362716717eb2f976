// read, write: the bytes of a space, streamed piece by piece.
#include <unistd.h>
#include <holdfast/space.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

struct DataArguments {
    std::string pool;
    std::string space;
    VirtAddr address;
    std::uint64_t size_bytes = 0;
};

void add_place(CLI::App& command, DataArguments& arguments) {
    add_pool(command, arguments.pool);
    add_space(command, arguments.space);
    add_address(command, arguments.address);
}

// --- read ---

// Prints the piece, or what stands before the first page that cannot be read; counts in `printed`.
Result<void> print_readable(const Space& space, VirtAddr address, std::span<std::byte> piece,
                            std::uint64_t& printed) {
    if (auto whole = space.read(address, piece); whole) {
        write_output(piece);
        printed += piece.size();
        return {};
    }
    while (!piece.empty()) {
        const std::size_t size =
            std::min<std::size_t>(piece.size(), kPageSize - address.page_offset());
        if (auto page = space.read(address, piece.first(size)); !page) return page;
        write_output(piece.first(size));
        printed += size;
        piece = piece.subspan(size);
        address = address + size;
    }
    return {};
}

Outcome read_data(const Context& context, const DataArguments& arguments) {
    if (arguments.size_bytes != 0 &&
        arguments.address + (arguments.size_bytes - 1) < arguments.address)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} bytes from {:#x} on wrap around the end of the address space",
                                arguments.size_bytes, arguments.address.bits()));
    const auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    Progress progress("reading");
    std::vector<std::byte> buffer(std::min<std::uint64_t>(kPieceBytes, arguments.size_bytes));
    for (std::uint64_t printed = 0; printed < arguments.size_bytes;) {
        const auto piece = std::span(buffer).first(
            std::min<std::uint64_t>(buffer.size(), arguments.size_bytes - printed));
        const auto copied = print_readable(*space, arguments.address + printed, piece, printed);
        if (!copied && printed == 0) return std::unexpected(copied.error());
        if (!copied) {
            // Not through main(), which might answer in JSON: standard output holds bytes by now.
            complain(copied.error().message);
            return exit_status_of(copied.error().code);
        }
        progress.update(printed, arguments.size_bytes);
    }
    return ExitStatus::well;
}

// --- write ---

// The next bytes of standard input; none at its end.
Result<std::span<const std::byte>> next_input(std::span<std::byte> buffer) {
    std::size_t filled = 0;
    while (filled < buffer.size()) {
        const ssize_t got = read(STDIN_FILENO, buffer.data() + filled, buffer.size() - filled);
        if (got == 0) break;
        if (got > 0)
            filled += static_cast<std::size_t>(got);
        else if (errno != EINTR)
            return fail(ErrorCode::io, fmt::format("standard input: {}", std::strerror(errno)));
    }
    return buffer.first(filled);
}

// Writes all of standard input; `written` counts what has reached the space, also after an error.
Result<void> write_input(Space& space, VirtAddr address, std::uint64_t& written) {
    Progress progress("writing");
    std::vector<std::byte> buffer(kPieceBytes);
    for (;;) {
        const auto piece = next_input(buffer);
        if (!piece) return std::unexpected(piece.error());
        if (piece->empty()) return {};
        if (address + (written + piece->size() - 1) < address)
            return fail(ErrorCode::invalid_argument,
                        "standard input is longer than what is left of the address space");
        if (auto done = space.write(address + written, *piece); !done) return done;
        written += piece->size();
        progress.update(written, 0);
    }
}

Outcome write_data(const Context& context, const DataArguments& arguments) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    std::uint64_t written = 0;
    const auto copied = write_input(*space, arguments.address, written);
    // What came before an error is made durable as well: half a file is better than any part of it.
    const auto durable =
        written == 0 ? Result<void>() : space->persist({arguments.address, written});
    if (!copied) return std::unexpected(copied.error());
    if (!durable) return std::unexpected(durable.error());
    if (context.json) print_json({{"written_bytes", written}});
    return ExitStatus::well;
}

}  // namespace

void add_data_commands(CLI::App& app, Context& context) {
    add_command<DataArguments>(
        app, context, "read", "Copy bytes of the space to standard output.",
        [](CLI::App& command, DataArguments& arguments) {
            add_place(command, arguments);
            add_size(command, "LENGTH", arguments.size_bytes, "bytes, or KiB, MiB, GiB: 64KiB")
                ->required();
        },
        read_data);
    add_command<DataArguments>(app, context, "write",
                               "Copy standard input into the space, and make it durable.",
                               add_place, write_data);
}

}  // namespace holdfast::tool
