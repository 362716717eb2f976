#include "faults/media_fault.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kPage = 4096;

void add_bits(std::vector<MediaFault>& faults, const std::vector<const FaultPlace*>& places,
              const FaultChoice& choice, std::mt19937_64& random) {
    std::uint64_t bits = 0;
    for (const FaultPlace* place : places) bits += place->size_bytes * 8;
    const bool all = choice.bits_per_structure == 0 || bits <= choice.bits_per_structure;
    const std::uint64_t count = all ? bits : choice.bits_per_structure;
    for (std::uint64_t i = 0; i < count; ++i) {
        std::uint64_t number = all ? i : random() % bits;
        for (const FaultPlace* place : places) {
            if (number < place->size_bytes * 8) {
                faults.push_back({MediaFault::Kind::flip_bit, place->structure,
                                  place->offset + number / 8, 0,
                                  static_cast<unsigned>(number % 8)});
                break;
            }
            number -= place->size_bytes * 8;
        }
    }
}

void add_lines(std::vector<MediaFault>& faults, const FaultPlace& place, std::mt19937_64& random) {
    for (std::uint64_t at = place.offset / kLineBytes * kLineBytes;
         at < place.offset + place.size_bytes; at += kLineBytes) {
        // A whole table has many lines; those with something in them are not known here.
        if (place.size_bytes >= kPage && random() % 8 != 0) continue;
        faults.push_back({MediaFault::Kind::zero_line, place.structure, at, 0, 0});
        faults.push_back({MediaFault::Kind::poison_line, place.structure, at, 0, 0});
    }
}

void add_misdirected(std::vector<MediaFault>& faults, const std::vector<const FaultPlace*>& frames,
                     std::mt19937_64& random) {
    for (const FaultPlace* to : frames)
        for (const FaultPlace* from : frames) {
            if (to == from || random() % (frames.size() / 8 + 1) != 0) continue;
            if (!to->what_of.empty() && to->what_of == from->what_of) continue;
            faults.push_back(
                {MediaFault::Kind::copy_frame, to->structure, to->offset, from->offset, 0});
            if (to < from)
                faults.push_back(
                    {MediaFault::Kind::swap_frames, to->structure, to->offset, from->offset, 0});
        }
}

}  // namespace

std::string MediaFault::to_string() const {
    switch (kind) {
        case Kind::flip_bit:
            return fmt::format("bit {} of byte {:#x} flipped ({})", bit, offset, structure);
        case Kind::zero_line:
            return fmt::format("line {:#x} zeroed ({})", offset, structure);
        case Kind::poison_line:
            return fmt::format("line {:#x} filled with ones ({})", offset, structure);
        case Kind::copy_frame:
            return fmt::format("frame {:#x} copied over frame {:#x} ({})", source, offset,
                               structure);
        case Kind::swap_frames:
            return fmt::format("frames {:#x} and {:#x} swapped ({})", source, offset, structure);
    }
    return {};
}

void plant(CrashImage& image, const MediaFault& fault) {
    const auto base = image.base();
    switch (fault.kind) {
        case MediaFault::Kind::flip_bit: {
            const std::byte flipped = base[fault.offset] ^ static_cast<std::byte>(1U << fault.bit);
            image.patch_bytes(fault.offset, {&flipped, 1});
            break;
        }
        case MediaFault::Kind::zero_line:
        case MediaFault::Kind::poison_line: {
            LineBytes line;
            line.fill(fault.kind == MediaFault::Kind::zero_line ? std::byte{0} : std::byte{0xff});
            image.patch_bytes(fault.offset, line);
            break;
        }
        case MediaFault::Kind::swap_frames:
            image.patch_bytes(fault.source, base.subspan(fault.offset, kPage));
            [[fallthrough]];
        case MediaFault::Kind::copy_frame:
            image.patch_bytes(fault.offset, base.subspan(fault.source, kPage));
            break;
    }
}

std::vector<MediaFault> choose_faults(const std::vector<FaultPlace>& places,
                                      const FaultChoice& choice) {
    std::mt19937_64 random(choice.seed);
    std::map<std::string, std::vector<const FaultPlace*>> by_name;
    std::vector<const FaultPlace*> frames;
    for (const FaultPlace& place : places) {
        by_name[place.structure].push_back(&place);
        if (place.is_frame) frames.push_back(&place);
    }
    std::vector<MediaFault> faults;
    for (const auto& [name, same] : by_name) {
        add_bits(faults, same, choice, random);
        for (const FaultPlace* place : same) add_lines(faults, *place, random);
    }
    add_misdirected(faults, frames, random);
    if (choice.at_most != 0 && faults.size() > choice.at_most) {
        // Not std::shuffle: the same seed must choose the same with every library.
        for (std::size_t i = 0; i < choice.at_most; ++i)
            std::swap(faults[i], faults[i + random() % (faults.size() - i)]);
        faults.resize(choice.at_most);
    }
    return faults;
}

}  // namespace holdfast::crash
